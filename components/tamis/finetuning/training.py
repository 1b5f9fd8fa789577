"""Supervised finetuning with TRL: checks before training, the training loop, and its result."""

from __future__ import annotations

import gc
import json
import logging
import math
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tamis.core.conversations import IGNORED
from tamis.core.errors import MissingExtraError, SettingsError
from tamis.core.lora import check_lora, lora_config
from tamis.core.models import Precision, device, load_causal_lm, load_quantized_lm
from tamis.core.progress import load_packages
from tamis.core.settings import load_yaml
from tamis.finetuning.checkpoints import newest_checkpoint, watch
from tamis.finetuning.processes import World, world
from tamis.finetuning.settings import FinetuningSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

log = logging.getLogger(__name__)
_TRAINING = "training.json"


def check_machine(settings: FinetuningSettings) -> None:
    """Check that this machine can train with these settings. Called before any work.

    Raises:
        MissingExtraError: when a package is not installed.
        SettingsError: when the precision needs a GPU, or the processes cannot share a batch evenly.
    """
    packages = {"trl": "training", "peft": "training", "accelerate": "training"}
    if settings.deepspeed is not None:
        packages["deepspeed"] = "deepspeed"
    if settings.method == "qlora":
        packages["bitsandbytes"] = "qlora"
    for package, extra in packages.items():
        if find_spec(package) is None:
            raise MissingExtraError.of(package, extra)
    if precision_of(settings) == "float16" and device().type == "cpu":
        raise SettingsError(
            "finetuning.precision is float16, but this machine has no GPU", allowed="auto, float32 or bfloat16"
        )
    settings.accumulation(world().size)


def check_adapted(settings: FinetuningSettings) -> None:
    """Check that the model has the modules that LoRA is to adapt, and that they can be trained. Called before any work.

    Raises:
        SettingsError: when it does not, or when the output head is to be adapted: TRL computes the loss from the head's
            own weights, so an adapter there would not be trained.
        ModelError: when the model's configuration cannot be loaded.
    """
    if settings.method != "full":
        check_lora(settings.lora, settings.model, settings.revision, where="finetuning.lora", embeddings=True)


def precision_of(settings: FinetuningSettings) -> Precision:
    """Return the precision of the forward and backward passes."""
    if settings.precision != "auto":
        return settings.precision
    return "bfloat16" if device().type == "cuda" else "float32"


def weights_precision(settings: FinetuningSettings) -> Precision:
    """Return the precision of the weights: that of training for frozen weights, float32 for trained ones.

    For QLoRA it is the precision of the frozen weights after dequantisation. In bfloat16, rounding would remove most
    updates of a full finetuning.
    """
    return "float32" if settings.method == "full" else precision_of(settings)


def load_base(settings: FinetuningSettings) -> PreTrainedModel:
    """Load the base model for the method of training, with a generation configuration that can be saved.

    Raises:
        ModelError: when it cannot be loaded.
        MissingExtraError: when a package is not installed.
    """
    load = load_quantized_lm if settings.method == "qlora" else load_causal_lm
    model = load(settings.model, settings.revision, weights_precision(settings))
    generation = model.generation_config
    if generation is not None and not generation.do_sample:
        try:
            generation.validate(strict=True)
        except ValueError:
            # Some models are published with sampling settings while sampling is off. transformers loads such a
            # configuration but refuses to save it.
            generation.do_sample = True
    return model


class Batches:
    """The order of samples: shuffled by seed and epoch, and sorted from long to short within each optimizer step.

    Each step has the samples that plain shuffling gives it, so training is the same. Sorting puts samples of similar
    length into the same micro-batch, which saves padding. The processes take micro-batches in turn.

    Args:
        lengths: (n,) tokens per sample.
        batch_size: samples per optimizer step.
        seed: random seed of the order.
        share: samples in one micro-batch of all processes together, a divisor of `batch_size`. An epoch is padded to a
            multiple of it with the index n, which stands for a sample without anything to learn.
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, share: int = 1) -> None:
        self._lengths, self._batch_size, self._seed, self._epoch = lengths, batch_size, seed, 0
        self._blanks = -len(lengths) % share

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch. The trainer calls this, also after a restart."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths) + self._blanks

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(len(self._lengths))
        for start in range(0, len(order), self._batch_size):
            step = order[start : start + self._batch_size]
            yield from step[np.argsort(-self._lengths[step], kind="stable")].tolist()
        yield from [len(order)] * self._blanks


@dataclass(frozen=True)
class Training:
    """The record of a finished training.

    Attributes:
        history: one row per optimizer step: step, epoch, loss (mean over the learnt tokens), learning_rate,
            gradient_norm.
        seconds: time that the steps took, without loading; after a kill, only the time since the restart.
    """

    history: list[dict[str, Any]]
    seconds: float


def trained_before(folder: Path) -> Training | None:
    """Return the record of a training that an earlier run finished in `folder`, if there is one."""
    file = folder / _TRAINING
    return Training(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def train(settings: FinetuningSettings, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Training:
    """Train on `folder`/tokens.arrow and save the adapter (for `full`, the model) in `folder`/trained.

    Checkpoints go to `folder`/checkpoints. After a kill, training continues from the newest complete one. If several
    processes train together, each calls this function, and the first one writes the results.

    Raises:
        ModelError: when the model cannot be loaded, or the loss is not finite.
        SettingsError: when the checkpoint was written by a different number of processes.
    """
    import torch

    here, checkpoints = world(), folder / "checkpoints"
    resumed_from = newest_checkpoint(checkpoints, here.size)
    watcher = watch(settings, checkpoints, here)
    trainer = _trainer(settings, tokenizer, folder, here, watcher)
    if resumed_from is not None:
        log.info("continuing from %s", resumed_from.name)
    try:
        trainer.train(resume_from_checkpoint=str(resumed_from) if resumed_from else None)
    finally:
        watcher.close()
    trainer.save_model(str(folder / "trained"))
    if settings.deepspeed is not None:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        # Otherwise, with stage 3, every model that is loaded later would be split among the processes too.
        unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    history = [
        {
            "step": row["step"],
            "epoch": row["epoch"],
            "loss": row["loss"],
            "learning_rate": row["learning_rate"],
            "gradient_norm": row.get("grad_norm"),
        }
        for row in trainer.state.log_history
        if "loss" in row
    ]
    training = Training(history, trainer.state.log_history[-1]["train_runtime"])
    if here.rank == 0:
        temporary = (folder / _TRAINING).with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(training)), encoding="utf-8")
        temporary.replace(folder / _TRAINING)
        shutil.rmtree(checkpoints, ignore_errors=True)
    trainer.accelerator.free_memory()
    del trainer
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    free_memory()
    return training


def free_memory() -> None:
    """Free the memory of models that are no longer used; a GPU seldom has room for two."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _trainer(
    settings: FinetuningSettings, tokenizer: PreTrainedTokenizerBase, folder: Path, here: World, watcher: Any
) -> SFTTrainer:
    import pyarrow.compute as pc

    load_packages("torch", "datasets", "trl.trainer.sft_trainer")
    import torch
    from datasets import Dataset, concatenate_datasets
    from transformers import PrinterCallback
    from trl.trainer.sft_trainer import SFTTrainer

    # Create the arguments first: they choose this process's GPU and, with DeepSpeed's stage 3, how the model is loaded.
    arguments = _arguments(settings, folder / "checkpoints", here.size)
    if settings.deepspeed is not None:
        from deepspeed import comm

        # DeepSpeed 0.19 uses deprecated names of torch, and every process would warn in every step.
        warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
        # Accelerate does this on GPUs only. Without it, stage 3 would assume that there is one process.
        comm.init_distributed(auto_mpi_discovery=False)
    model = load_base(settings).train()
    layers = model.config.get_text_config().num_hidden_layers
    # Warnings about adapted embeddings do not apply: `save_merged` unties tied ones and saves their weights.
    for message in ("Model has `tie_word_embeddings=True`", "Setting `save_embedding_layers` to `True`"):
        warnings.filterwarnings("ignore", message, UserWarning)
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_file(str(folder / "tokens.arrow")),
        processing_class=tokenizer,
        peft_config=None if settings.method == "full" else lora_config(settings.lora, layers),
        callbacks=[watcher],
    )
    trainer.remove_callback(PrinterCallback)
    if settings.method == "qlora":
        # TRL casts the adapter to bfloat16, where rounding would remove most updates of this size.
        for weight in cast("torch.nn.Module", trainer.model).parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()
    rows: Any = trainer.train_dataset
    lengths = pc.list_value_length(rows.data.column("input_ids")).to_numpy()
    batches = Batches(lengths, settings.batch_size, settings.seed, share=settings.micro_batch_size * here.size)
    blank = {"input_ids": [[tokenizer.pad_token_id]], "labels": [[IGNORED]], "seq_lengths": [[1]]}
    blank_row = Dataset.from_dict({name: blank[name] for name in rows.column_names}, features=rows.features)
    trainer.train_dataset = concatenate_datasets([rows, blank_row])
    trainer.add_callback(_epochs_of(batches))
    # Set on the object: a subclass would need the heavy import at the top of the module.
    trainer._get_train_sampler = lambda dataset=None: batches  # type: ignore[method-assign,assignment,return-value]
    # Rounded down: otherwise the only step of a small subset would be a warm-up step with a learning rate of 0.
    steps = settings.epochs * math.ceil(len(lengths) / settings.batch_size)
    trainer.args.warmup_steps = int(steps * settings.warmup_ratio)
    if (
        device().type == "cpu"
        and not settings.packing
        and "logits_to_keep" in signature(type(model).forward).parameters
    ):
        trainer.compute_loss = partial(loss_on_cpu, processes=here.size)  # type: ignore[method-assign]
    if here.rank:
        torch.manual_seed(settings.seed + here.rank)  # otherwise dropout would be the same in all processes
    return trainer


def _epochs_of(batches: Batches) -> TrainerCallback:
    """Return a trainer callback that sets the epoch of `batches`.

    The trainer sets it too, but it cannot reach a sampler inside the wrappers that divide batches among processes and
    that skip batches when training resumes.
    """
    from transformers import TrainerCallback

    class Epochs(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            batches.set_epoch(int(state.epoch))

    return Epochs()


def loss_on_cpu(
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    return_outputs: bool = False,
    num_items_in_batch: Any = None,
    *,
    processes: int = 1,
) -> torch.Tensor:
    """Compute TRL's loss in two thirds of its time on a CPU.

    TRL's output head is made for GPUs. On a CPU it also computes all positions of the prompts, and does so twice. This
    function skips positions where no sample of the micro-batch has anything to learn. `num_items_in_batch` counts the
    tokens of all `processes`, but their gradients are averaged; the factor `processes` makes up for that.
    """
    import torch

    labels = inputs["labels"][:, 1:]
    learnt = (labels != IGNORED).any(dim=0).nonzero().flatten()
    output = model(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        logits_to_keep=learnt,
        use_cache=False,
    )
    total = torch.nn.functional.cross_entropy(
        output.logits.float().flatten(0, 1), labels[:, learnt].flatten(), reduction="sum", ignore_index=IGNORED
    )
    loss: torch.Tensor = total * processes / num_items_in_batch
    return loss


def _arguments(settings: FinetuningSettings, checkpoints: Path, processes: int) -> SFTConfig:
    from trl.trainer.sft_config import SFTConfig

    precision, file = precision_of(settings), settings.deepspeed_file
    return SFTConfig(
        output_dir=str(checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.accumulation(processes),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        use_cpu=device().type == "cpu",
        gradient_checkpointing=settings.gradient_checkpointing,
        packing=settings.packing,
        max_length=settings.max_tokens if settings.packing else None,
        dataset_kwargs=None if settings.packing else {"skip_prepare_dataset": True},
        seed=settings.seed,
        dataloader_pin_memory=device().type == "cuda",
        deepspeed=load_yaml(file) if file else None,
        ddp_find_unused_parameters=False,  # every pass uses every trained weight
        logging_steps=1,
        logging_nan_inf_filter=False,  # the callback must see a loss that is not finite
        save_strategy="no",  # the callback decides when to save
        disable_tqdm=True,
        report_to="none",
    )
