"""Running lm-eval in this process: loading the model, evaluating it, and writing the results."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tamis.core.errors import MissingExtraError, ModelError, SettingsError, UnexpectedError
from tamis.core.hub_access import refused_by_hub
from tamis.core.models import device, load_tokenizer, model_in_words, quiet_bars
from tamis.core.progress import Progress, loading
from tamis.core.templates import PINNED
from tamis.evaluation.checks import check_room
from tamis.evaluation.settings import EvaluationSettings
from tamis.evaluation.suite import Entry

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

log = logging.getLogger(__name__)


def load_model(settings: EvaluationSettings, path: str) -> LM:
    """Load the model at `path`, a folder or a name on the Hugging Face Hub, for lm-eval.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when the backend's package is not installed.
    """
    try:
        with loading(model_in_words(path, settings.revision)):
            model = _vllm(settings, path) if settings.backend == "vllm" else _transformers(settings, path)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"cannot load the model '{path}': {str(error).strip().splitlines()[0]}",
            allowed="a folder in Hugging Face layout, or a name on the Hugging Face Hub",
            action="check evaluation.model; without a network give a folder; gated models need HF_TOKEN",
            permanent=refused_by_hub(error),
        ) from None
    model.chat_template_args = {**model.chat_template_args, **PINNED}
    return model


def check_asked(settings: EvaluationSettings, path: str) -> None:
    """Check before any work that the model at `path` has a chat template, if the settings use it.

    Raises:
        SettingsError: when it has none.
        ModelError: when its tokenizer cannot be loaded.
    """
    if settings.apply_chat_template and not load_tokenizer(path, settings.revision).chat_template:
        raise SettingsError(
            f"evaluation.apply_chat_template is true, but the model '{path}' has no chat template",
            allowed="a chat (instruct) model, or a model that Tamis has trained",
            action="set evaluation.apply_chat_template: false; trained models and their base model must be prompted "
            "in the same way",
        )


def _transformers(settings: EvaluationSettings, path: str) -> LM:
    quiet_bars()
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=path,
        revision=settings.revision or "main",
        device=str(device()),
        dtype=precision_of(settings),
        batch_size=settings.batch_size,
        max_length=settings.max_length,
    )


def _vllm(settings: EvaluationSettings, path: str) -> LM:
    if find_spec("vllm") is None:
        raise MissingExtraError.of("vllm", "vllm")
    from lm_eval.models.vllm_causallms import VLLM

    try:
        return VLLM(
            pretrained=path,
            revision=settings.revision,
            dtype=cast(Any, precision_of(settings)),
            max_model_len=settings.max_length,
            tensor_parallel_size=settings.gpus,
            seed=settings.seed,
            gpu_memory_utilization=settings.gpu_memory_share,
        )
    except RuntimeError as error:
        # vLLM's engine is a separate process, which has logged the cause.
        raise ModelError(
            f"vLLM cannot start with the model '{path}': {str(error).strip().splitlines()[0]}",
            action="see vLLM's log above; if memory is too small, lower evaluation.max_length or gpu_memory_share",
        ) from error


def precision_of(settings: EvaluationSettings) -> str:
    """Return the precision of the weights, with "auto" resolved."""
    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if device().type == "cuda" else "float32"


def evaluate(
    model: LM,
    manager: TaskManager,
    entries: Sequence[Entry],
    drawn: dict[str, list[int]],
    settings: EvaluationSettings,
    file: Path,
) -> dict[str, Any]:
    """Evaluate `model` and return lm-eval's own results, with `samples`.

    Raises:
        SettingsError: when a task's answers would leave no room for its questions.
        UnexpectedError: when lm-eval, or a task's own function, fails.
    """
    from jinja2 import TemplateError
    from lm_eval import evaluator

    # lm-eval runs git to get the commit of the working folder. Outside a repository, git prints an error.
    evaluator.get_git_commit_hash = lambda: None
    for task in (task for entry in entries for task in entry.tasks):
        if task.OUTPUT_TYPE == "generate_until":
            check_room(task.task_name, task.config.generation_kwargs or {}, model.max_length, file)
    with Progress("evaluation", None, unit="answers") as progress:
        model.set_cache_hook(_Counter(progress))
        for method in ("loglikelihood", "loglikelihood_rolling", "generate_until"):
            setattr(model, method, _without_bar(getattr(model, method)))
        try:
            results: dict[str, Any] = evaluator.simple_evaluate(
                model=model,
                tasks=[entry.item for entry in entries],
                task_manager=manager,
                batch_size=settings.batch_size,
                device=str(device()),
                limit=settings.limit,
                samples=drawn if drawn and settings.limit is None else None,
                apply_chat_template=settings.apply_chat_template,
                fewshot_as_multiturn=settings.apply_chat_template,
                random_seed=settings.seed,
                numpy_random_seed=settings.seed,
                torch_random_seed=settings.seed,
                fewshot_random_seed=settings.seed,
            )
        except (LookupError, AssertionError, ValueError, TypeError, AttributeError, TemplateError) as error:
            log.debug("lm-eval's error", exc_info=True)
            seen = UnexpectedError.of(error, "lm-eval").problem
            raise UnexpectedError(
                seen, action="check the suite's own tasks: a document or a setting is not what their code expects"
            ) from error
    return results


class _Counter:
    """Counts answers for the progress. lm-eval passes each answer to a cache as soon as it has it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def add_partial(self, method: str, request: Any, answer: Any) -> None:
        self._progress.advance()


def _without_bar(method: Any) -> Any:
    def quiet(requests: Any) -> Any:
        return method(requests, disable_tqdm=True)

    return quiet


def write_results(results: dict[str, Any], folder: Path) -> None:
    """Write `results.json`, as lm-eval's command line does, and every answer to `samples_<task>.jsonl`."""
    from lm_eval.utils import handle_non_serializable

    def as_json(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, default=handle_non_serializable, **options)

    summary = {key: value for key, value in results.items() if key != "samples"}
    (folder / "results.json").write_text(as_json(summary, indent=2), encoding="utf-8")
    for task, samples in sorted(results["samples"].items()):
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in task)
        with (folder / f"samples_{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(as_json(sample) + "\n" for sample in samples)


def scores_of(results: dict[str, Any], entries: Sequence[Entry], model: str) -> list[dict[str, Any]]:
    """Return a row for every task or group of the suite: its headline metric, standard error and number of samples."""
    rows = []
    for entry in entries:
        metric, filtered = entry.line.key
        result = results["results"][entry.name]
        stderr = result.get(f"{metric}_stderr,{filtered}")
        rows.append(
            {
                "model": model,
                "task": entry.name,
                "metric": metric if filtered == "none" else f"{metric},{filtered}",
                "value": float(result[f"{metric},{filtered}"]),
                "stderr": float(stderr) if isinstance(stderr, (int, float)) else None,
                "n": result["sample_len"],
            }
        )
    return rows
