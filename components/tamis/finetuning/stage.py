"""The finetuning stage: selection in, model out."""

from __future__ import annotations

import json
import logging
import platform
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import StorageError, TamisError
from tamis.core.models import revision_of
from tamis.core.outlook import looking
from tamis.core.steps import Input, Step, Uri, run_step
from tamis.core.storage import fingerprint
from tamis.finetuning.processes import Meeting, launch, to_launch, world
from tamis.finetuning.settings import FinetuningSettings

log = logging.getLogger(__name__)


def run(settings: FinetuningSettings, *, selection: Uri, out: Uri) -> Manifest:
    """Train `settings.model` on the subset in `selection`.

    The artifact at `out` has the subset's name. Its folder is the trained model in Hugging Face layout, which
    `from_pretrained` loads; `adapter/` has the LoRA matrices and `training.json` the loss of every step.

    Raises:
        ModelError: when the model cannot be loaded, the loss is not finite, or training did not change the model.
        InputError: when too many samples of the subset, or all, cannot be trained on.
        SettingsError: when the settings do not fit the model or the machine.
        MissingExtraError: when a package that training needs is not installed.
    """
    if looking():
        return _run(settings, selection=selection, out=out)
    if processes := to_launch(settings):
        return launch(settings, processes, selection=selection, out=out)
    if world().size == 1:
        return _run(settings, selection=selection, out=out)
    meeting = Meeting()
    if meeting.rank > 0:
        return _follow(meeting, settings)
    try:
        manifest = _run(settings, selection=selection, out=out, announce=meeting.announce)
        meeting.announce(None)  # nothing to train if the step was already finished
        meeting.conclude(manifest)
    except TamisError as error:
        meeting.announce(None)
        meeting.conclude(error)
        raise
    return manifest


def _follow(meeting: Meeting, settings: FinetuningSettings) -> Manifest:
    """Train together with the first process; all other processes run this."""
    logging.getLogger("tamis").setLevel(logging.WARNING)  # the first process logs for all
    folder = meeting.work()
    if folder is not None:
        from tamis.core.conversations import chat_tokenizer
        from tamis.finetuning.training import train

        if not folder.exists():
            raise StorageError(
                f"training process {meeting.rank} on {platform.node()} cannot see the first process's folder {folder}",
                allowed="a folder that all nodes share",
                action="set TAMIS_HOME to a volume that all nodes mount (ReadWriteMany)",
                permanent=True,
            )
        train(settings, chat_tokenizer(settings.model, settings.revision, settings.format), folder)
    return meeting.outcome()


def _run(
    settings: FinetuningSettings, *, selection: Uri, out: Uri, announce: Callable[[Path], None] | None = None
) -> Manifest:
    """Run the stage in this process; `announce` gets the scratch folder as soon as other processes can train in it."""
    files = {"model": revision_of(settings.model, settings.revision)}
    if settings.deepspeed_file is not None:
        files["deepspeed"] = fingerprint(settings.deepspeed_file)
    return run_step(
        "finetuning",
        "model",
        settings,
        partial(_finetune, announce=announce),
        out=out,
        inputs={"selection": Input(selection, "selection")},
        files=files,
        name=Artifact.open(selection, "selection").name,
    )


def _finetune(step: Step[FinetuningSettings], announce: Callable[[Path], None] | None) -> None:
    from tamis.core.causal import explained_memory
    from tamis.core.conversations import chat_tokenizer
    from tamis.finetuning.conversations import write_tokens
    from tamis.finetuning.merging import save_merged
    from tamis.finetuning.training import check_adapted, check_machine, train, trained_before

    settings = step.settings
    check_machine(settings)
    check_adapted(settings)
    tokenizer = chat_tokenizer(settings.model, settings.revision, settings.format)
    counts = write_tokens(step.input("selection").path("subset.jsonl"), tokenizer, settings, step.scratch)
    training = trained_before(step.scratch)
    with explained_memory("training", "lower finetuning.micro_batch_size, or set finetuning.gradient_checkpointing"):
        if training is None:
            if announce is not None:
                announce(step.scratch)
            training = train(settings, tokenizer, step.scratch)
        proof = save_merged(settings, tokenizer, work=step.scratch, out=step.out)
    history = training.history
    if settings.method != "full":
        _copy_adapter(step.scratch / "trained", step.out / "adapter")
    _write_training(step, counts, history)
    step.rows = counts["samples"]
    step.models["base"] = revision_of(settings.model, settings.revision)
    step.facts.update(counts, steps=len(history), first_loss=history[0]["loss"], last_loss=history[-1]["loss"])
    step.facts.update(proof, processes=world().size, training_seconds=training.seconds)
    log.info(
        "loss %.3f in the first of %d steps, %.3f in the last", history[0]["loss"], len(history), history[-1]["loss"]
    )


def _copy_adapter(trained: Path, out: Path) -> None:
    """Copy the adapter that PEFT saved to `out`, with sorted module names: PEFT writes them in random order."""
    out.mkdir()
    shutil.copyfile(trained / "adapter_model.safetensors", out / "adapter_model.safetensors")
    config = json.loads((trained / "adapter_config.json").read_text(encoding="utf-8"))
    if isinstance(config.get("target_modules"), list):
        config["target_modules"].sort()
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (out / "adapter_config.json").write_text(text + "\n", encoding="utf-8")


def _write_training(step: Step[FinetuningSettings], counts: dict[str, object], history: list[dict[str, float]]) -> None:
    training = {"base": step.settings.model, **counts, "history": history}
    (step.out / "training.json").write_text(json.dumps(training, indent=1) + "\n", encoding="utf-8")
