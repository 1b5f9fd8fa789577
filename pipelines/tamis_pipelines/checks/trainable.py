"""Checks, without loading weights, that models can be trained, scored and evaluated as the settings say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tamis.core.conversations import Encoder, Format, Unusable, chat_tokenizer
from tamis.core.errors import SettingsError, TamisError
from tamis.core.leftout import action_for
from tamis.core.lora import Lora, check_lora
from tamis.core.models import load_config, load_tokenizer, vocabulary_of
from tamis.core.references import walk
from tamis.core.samples import Message
from tamis.evaluation.checks import check_room
from tamis.evaluation.settings import EvaluationSettings
from tamis.evaluation.suite import Places, Suite, load_entries, open_suite, own_index
from tamis.finetuning.conversations import check_tokenizer
from tamis.finetuning.settings import FinetuningSettings
from tamis.judging.settings import ModelContestant
from tamis.llm.backends.encoding import around, asking_tokenizer
from tamis.llm.settings import LocalModelSettings
from tamis.scoring.settings import ScoringSettings
from tamis_pipelines.checks.models import in_cache
from tamis_pipelines.checks.services import asked_of
from tamis_pipelines.settings import RunSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Look = Callable[[], str]
_ANSWERED = [Message(role="user", content="One and one?"), Message(role="assistant", content="Two.")]
LOCAL = ("json", "csv", "text", "parquet")  # dataset_path of lm-eval tasks whose data are files


def looked_at(settings: RunSettings) -> Iterator[tuple[str, str | TamisError]]:
    """Yield the name of everything that was checked, with what was found or the error."""
    for where, look in _looks(settings):
        try:
            yield where, look()
        except TamisError as error:
            yield where, error


def is_laid_out(settings: RunSettings) -> bool:
    """Return whether an earlier run has left results where this run puts its models and scores."""
    places = [f"models/{cell.name}" for cell in settings.cells if cell.finetuning is not None]
    places += ["scores"] if settings.scores else []
    return all((settings.results / place).is_dir() for place in places)


def _looks(settings: RunSettings) -> Iterator[tuple[str, Look]]:
    if find_spec("transformers") is None or find_spec("torch") is None:
        return  # another check reports it
    trained: dict[str, FinetuningSettings] = {
        cell.finetuning.model: cell.finetuning for cell in settings.cells if cell.finetuning is not None
    }
    for model, training in trained.items():
        if _is_here(model):
            yield f"{model}: tokenizer", partial(_tokens, model, training.revision, training.format, "finetuning")
            if training.method != "full" and find_spec("peft") is not None:
                yield f"{model}: LoRA", partial(_lora, training.lora, model, training.revision, "finetuning.lora")
    if settings.evaluation is not None:
        yield from _evaluations(settings.evaluation, list(trained.values()))
    if "influence" in settings.scores and settings.influence is not None and _is_here(settings.influence.model):
        less = settings.influence
        yield "influence.model: tokenizer", partial(_tokens, less.model, less.revision, less.format, "influence")
        if find_spec("peft") is not None:
            where = "influence.warmup"
            yield f"{where}.targets", partial(_lora, less.warmup, less.model, less.revision, where)
    yield from _looks_at_answering(settings)
    for name in settings.scores:
        section = getattr(settings, name)
        tried = section.measure.tokenizer() if isinstance(section, ScoringSettings) else None
        if tried is not None and _is_here(tried[0]):
            yield f"{name}.model: tokenizer", partial(_tokens, *tried, name)


def _looks_at_answering(settings: RunSettings) -> Iterator[tuple[str, Look]]:
    for where, model, revision, style in _answering(settings):
        if _is_here(model):
            yield f"{where}: tokenizer", partial(_asked, model, revision, style)


def _is_here(model: str) -> bool:
    """Return whether the model's small files can be read without a network."""
    if Path(model).is_dir():
        return (Path(model) / "config.json").is_file()
    return all(in_cache(model, name) is not None for name in ("config.json", "tokenizer.json"))


def _tokens(model: str, revision: str | None, style: Format, stage: str) -> str:
    tokenizer, known = chat_tokenizer(model, revision, style), vocabulary_of(model, revision)
    if stage == "finetuning":
        check_tokenizer(tokenizer, model, known)
    try:
        Encoder(tokenizer, 2048, known).encode(_ANSWERED)
    except Unusable as reason:
        raise SettingsError(
            f"'{model}' cannot be used with format: {style}; a plain question and answer gave: {reason}",
            action=action_for(str(reason), stage),
        ) from None
    return _sizes(tokenizer, known)


def _asked(model: str, revision: str | None, style: Format | None) -> str:
    """Check a model that answers prompts in the chat template of `style`; None: without a template."""
    tokenizer = load_tokenizer(model, revision) if style is None else asking_tokenizer(model, revision, style)
    if style is not None and tokenizer.chat_template:  # another check reports that there is none
        around(tokenizer)
    return _sizes(tokenizer, vocabulary_of(model, revision))


def _answering(settings: RunSettings) -> Iterator[tuple[str, str, str | None, Format | None]]:
    """Yield setting, model, revision and format of every local model that answers prompts or scores samples."""
    for where, one in asked_of(settings).items():
        if isinstance(one, ModelContestant | LocalModelSettings):
            yield where, one.model, one.revision, one.format if isinstance(one, ModelContestant) else "chat"
    for name in settings.scores:
        section = getattr(settings, name)
        if isinstance(section, ScoringSettings) and section.measure.tokenizer() is None:  # `_looks` checks the others
            for field in walk(section.measure, name):
                if field.reference is not None and field.reference.to == "model":
                    revision = getattr(field.owner, field.where.rpartition(".")[2].replace("model", "revision"), None)
                    yield field.where, str(field.value), revision, None


def _sizes(tokenizer: PreTrainedTokenizerBase, known: int) -> str:
    beyond = sorted(word for word, number in tokenizer.get_vocab().items() if number >= known)
    if not beyond:
        return f"{len(tokenizer):,} tokens, all in the model's vocabulary"
    named = ", ".join(beyond[:3]) + (" …" if len(beyond) > 3 else "")
    return (
        f"{len(tokenizer):,} tokens, of which {len(beyond):,} are not in the model's vocabulary, so samples with them "
        f"are left out: {named}"
    )


def _lora(lora: Lora, model: str, revision: str | None, where: str) -> str:
    training = where.startswith("finetuning")
    check_lora(lora, model, revision, where=where, embeddings=training, head=not training)
    return lora.targets if isinstance(lora.targets, str) else ", ".join(lora.targets)


def _evaluations(settings: EvaluationSettings, trained: list[FinetuningSettings]) -> Iterator[tuple[str, Look]]:
    here = {training.model: training.revision for training in trained if _is_here(training.model)}
    if settings.apply_chat_template:
        for model, revision in here.items():
            yield "evaluation.apply_chat_template", partial(_template, model, revision)
    try:
        suite, places = open_suite(settings)
    except TamisError:
        return  # another check reports it
    if places.tasks is not None and find_spec("lm_eval") is not None:
        yield "evaluation.suite: its tasks", partial(_own_tasks, places.tasks, suite, places, settings, here)


def _template(model: str, revision: str | None) -> str:
    chat_tokenizer(model, revision, "chat")
    return f"{model} has a chat template"


def _own_tasks(
    folder: Path, suite: Suite, places: Places, settings: EvaluationSettings, models: dict[str, str | None]
) -> str:
    """Check the suite's own tasks whose data are files: their splits and fields, and room for their answers."""
    manager = own_index(folder)
    configs = {
        line.task: manager.task_index[line.task].cfg or {} for line in suite.tasks if line.task in manager.task_index
    }
    local = [line for line in suite.tasks if configs.get(line.task, {}).get("dataset_path") in LOCAL]
    for line in local:
        config = configs[line.task]
        if config.get("output_type", "generate_until") == "generate_until":
            for context in _contexts(settings, models):
                check_room(line.task, config.get("generation_kwargs") or {}, context, places.file)
    if not local:
        return "none of them has its data in files"
    load_entries(manager, suite.model_copy(update={"tasks": local}), places)
    return f"{len(local)} have data in files; their splits, fields and answer lengths fit"


def contexts(settings: RunSettings) -> list[int]:
    """Return the context length of each evaluated model for which this machine knows it."""
    if settings.evaluation is None or find_spec("transformers") is None:
        return []
    trained = {cell.finetuning.model: cell.finetuning.revision for cell in settings.cells if cell.finetuning}
    here = {model: revision for model, revision in trained.items() if _is_here(model)}
    return _contexts(settings.evaluation, here)


def _contexts(settings: EvaluationSettings, models: dict[str, str | None]) -> list[int]:
    """Return the context length of each model for which it is known."""
    if settings.max_length is not None:
        return [settings.max_length]
    configs = [load_config(model, revision).get_text_config() for model, revision in models.items()]
    return [found for config in configs if (found := getattr(config, "max_position_embeddings", None))]
