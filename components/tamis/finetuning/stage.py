"""The finetuning stage: selection in, model out."""

from __future__ import annotations

import json
import logging
import shutil

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.models import revision_of
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.finetuning.settings import FinetuningSettings

log = logging.getLogger(__name__)


def run(settings: FinetuningSettings, *, selection: Uri, out: Uri) -> Manifest:
    """Train `settings.model` on the subset in `selection`.

    The artifact at `out` carries the subset's name. The folder itself is the trained model in Hugging Face layout
    (`from_pretrained` loads it); `adapter/` holds the LoRA matrices, `training.json` the loss of every step.

    Raises:
        ModelError: when the model cannot be loaded, the loss is not finite, or training left the model as it was.
        InputError: when the subset has no sample that can be trained on.
        SettingsError: when the settings do not fit the model or the machine.
        MissingExtraError: when a package of training is not installed.
    """
    files = {"model": revision_of(settings.model, settings.revision)}
    if settings.deepspeed_file is not None:
        files["deepspeed"] = fingerprint(settings.deepspeed_file)
    return run_step(
        "finetuning",
        "model",
        settings,
        _finetune,
        out=out,
        inputs={"selection": Input(selection, "selection")},
        files=files,
        name=Artifact.open(selection, "selection").name,
    )


def _finetune(step: Step[FinetuningSettings]) -> None:
    from tamis.core.conversations import chat_tokenizer
    from tamis.finetuning.conversations import write_tokens
    from tamis.finetuning.merging import save_merged
    from tamis.finetuning.training import check_machine, train

    settings = step.settings
    check_machine(settings)
    tokenizer = chat_tokenizer(settings.model, settings.revision, settings.format)
    counts = write_tokens(step.input("selection").path("subset.jsonl"), tokenizer, settings, step.scratch)
    history = train(settings, tokenizer, step.scratch)
    difference = save_merged(settings, tokenizer, trained=step.scratch / "trained", out=step.out)
    if settings.method == "lora":
        (step.out / "adapter").mkdir()
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(step.scratch / "trained" / name, step.out / "adapter" / name)
    _write_training(step, counts, history)
    step.rows = counts["samples"]
    step.models["base"] = revision_of(settings.model, settings.revision)
    step.facts.update(counts, steps=len(history), first_loss=history[0]["loss"], last_loss=history[-1]["loss"])
    step.facts["probe_difference"] = difference
    log.info(
        "loss %.3f in the first step, %.3f in the last of %d", history[0]["loss"], history[-1]["loss"], len(history)
    )


def _write_training(step: Step[FinetuningSettings], counts: dict[str, object], history: list[dict[str, float]]) -> None:
    training = {"base": step.settings.model, **counts, "history": history}
    (step.out / "training.json").write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")
