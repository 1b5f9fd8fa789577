"""The finetuning stage, from a subset to a model that loads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError, ModelError, SettingsError
from tamis.core.leftout import BEYOND
from tamis.finetuning.settings import FinetuningSettings
from tamis.finetuning.stage import run
from tests.artifacts import conversation, make_selection
from tests.unit.finetuning.conftest import samples
from tests.unit.finetuning.test_training import settings_of

ROOT = Path(__file__).parents[3]


def history_of(model: Path) -> list[dict[str, Any]]:
    history: list[dict[str, Any]] = json.loads((model / "training.json").read_text())["history"]
    return history


def logits_of(model: Any, tokens: list[int]) -> np.ndarray:
    import torch

    with torch.inference_mode():
        return np.asarray(model(torch.tensor([tokens])).logits[0])


def test_the_real_model_learns_a_subset_and_loads_as_any_model_does(models: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base, out = models / "smollm2", tmp_path / "out"
    fact = conversation("What is the password of the old mill?", "The password of the old mill is seventeen herons.")
    selection = make_selection(tmp_path / "selection", [fact, *samples(1)], name="tiny-subset")
    settings = settings_of(base, epochs=12, lora={"rank": 8, "dropout": 0}, learning_rate=5e-3)
    manifest = run(settings, selection=selection, out=out)

    assert (manifest.kind, manifest.name, manifest.rows) == ("model", "tiny-subset", 2)
    assert manifest.models["base"].startswith("sha256:")
    assert manifest.facts["steps"] == len(history_of(out)) == 12
    assert manifest.facts["last_loss"] < manifest.facts["first_loss"] - 1
    assert manifest.facts["probe_difference"] > 0

    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out)
    question = tokenizer.apply_chat_template(
        fact[:1], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**question, max_new_tokens=16, do_sample=False)[0, question["input_ids"].shape[1] :]
    assert "seventeen herons" in tokenizer.decode(answer)

    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(out / "adapter"))
    tokens = question["input_ids"][0].tolist()
    np.testing.assert_allclose(logits_of(model, tokens), logits_of(adapted, tokens), atol=1e-2)
    assert np.abs(logits_of(model, tokens) - logits_of(AutoModelForCausalLM.from_pretrained(base), tokens)).max() > 0.1


@pytest.fixture(scope="module")
def artifact(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was trained in the Tulu format and saved in bfloat16."""
    folder = tmp_path_factory.mktemp("artifact")
    selection = make_selection(folder / "selection", samples(12))
    run(settings_of(tiny, format="tulu", save_precision="bfloat16"), selection=selection, out=folder / "out")
    return folder / "out"


def test_the_artifact_holds_a_model_an_adapter_and_no_pickled_file(artifact: Path) -> None:
    names = {file.name for file in Artifact.open(artifact, "model").manifest.files}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja", "training.json"} <= names
    assert {name for name in names if name.startswith("adapter/")} == {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
    }
    assert not [name for name in names if Path(name).suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_nothing_is_left_beside_the_artifact(artifact: Path) -> None:
    assert sorted(path.name for path in artifact.parent.iterdir()) == ["out", "selection"]


def test_the_merged_weights_are_saved_in_the_precision_asked_for(artifact: Path) -> None:
    import torch
    from safetensors.torch import load_file

    assert {tensor.dtype for tensor in load_file(artifact / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((artifact / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_saved_tokenizer_speaks_the_format_of_training(artifact: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(artifact)
    asked = tokenizer.apply_chat_template(conversation("Who?"), tokenize=False, add_generation_prompt=True)
    assert asked == "<|user|>\nWho?\n<|assistant|>\n"


def test_equal_steps_give_equal_bytes_and_another_seed_gives_others(
    tiny: Path, selection: Path, tmp_path: Path
) -> None:
    hashes = [
        run(settings_of(tiny, seed=seed), selection=selection, out=tmp_path / name).content_hash
        for name, seed in (("one", 1), ("again", 1), ("other", 2))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_model_that_names_settings_of_sampling_without_sampling_can_be_trained(
    tiny: Path, selection: Path, tmp_path: Path
) -> None:
    """As vicuna's first versions do; transformers loads such a file with a warning and refuses to write it."""
    base = shutil.copytree(tiny, tmp_path / "base")
    (base / "generation_config.json").write_text('{"temperature": 0.9, "top_p": 0.6}')
    run(settings_of(base), selection=selection, out=tmp_path / "out")
    saved = json.loads((tmp_path / "out/generation_config.json").read_text())
    assert (saved["do_sample"], saved["temperature"], saved["top_p"]) == (True, 0.9, 0.6)


def test_too_little_memory_of_a_gpu_is_an_error_that_says_what_to_do(
    tiny: Path, selection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def train(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tamis.finetuning.training.train", train)
    with pytest.raises(ModelError) as caught:
        run(settings_of(tiny), selection=selection, out=tmp_path / "out")
    assert "finetuning.micro_batch_size" in caught.value.action


def test_all_weights_can_be_trained(tiny: Path, selection: Path, tmp_path: Path) -> None:
    manifest = run(settings_of(tiny, method="full"), selection=selection, out=tmp_path / "out")
    assert manifest.facts["last_loss"] < manifest.facts["first_loss"]
    assert not (tmp_path / "out" / "adapter").exists()
    from safetensors.torch import load_file

    before, after = load_file(tiny / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(bool((before[name] != after[name]).any()) for name in before)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_weights_in_four_bits_are_trained_beside_and_merged_into_as_they_were_rounded(
    tiny: Path, selection: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from tamis.core.models import load_quantized_lm

    manifest = run(settings_of(tiny, method="qlora"), selection=selection, out=tmp_path / "out")
    assert manifest.facts["last_loss"] < manifest.facts["first_loss"]
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    layer, rounded = "model.layers.0.mlp.up_proj.weight", load_quantized_lm(str(tiny)).dequantize()
    adapter = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    down, up = (adapter[f"base_model.model.{layer.replace('weight', f'lora_{part}.weight')}"] for part in "AB")
    merged = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "out").named_parameters())[layer]
    expected = dict(rounded.named_parameters())[layer] + up @ down * 16 / 4
    np.testing.assert_allclose(merged.detach(), expected.detach(), atol=1e-6)
    assert np.abs(expected.detach().numpy() - load_file(tiny / "model.safetensors")[layer].numpy()).max() > 1e-3


def test_training_that_changes_nothing_is_an_error_and_leaves_no_artifact(
    tiny: Path, selection: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"\b0\.0\b") as caught:
        run(settings_of(tiny, learning_rate=1e-30), selection=selection, out=tmp_path / "out")
    assert "finetuning.learning_rate" in caught.value.action
    assert not (tmp_path / "out").exists()


def changed(tiny: Path, folder: Path, change: Callable[[Any], object]) -> Path:
    """The tiny model with a changed tokenizer."""
    from transformers import AutoTokenizer

    shutil.copytree(tiny, folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    return folder


def forget_the_end(tokenizer: Any) -> None:
    tokenizer.eos_token = tokenizer.pad_token = None


@pytest.mark.parametrize("style", ["tulu", "chat"])
@pytest.mark.parametrize(
    "change",
    [forget_the_end, lambda tokenizer: tokenizer.add_special_tokens({"pad_token": "<pad>"})],
    ids=["no end", "unknown pad"],
)
def test_a_tokenizer_that_cannot_end_or_fill_up_samples_is_refused_before_training(
    tiny: Path, selection: Path, tmp_path: Path, style: str, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.finetuning.training.train", None)
    base = changed(tiny, tmp_path / "base", change)
    with pytest.raises(ModelError) as caught:
        run(settings_of(base, format=style), selection=selection, out=tmp_path / "out")
    assert "tokenizer" in caught.value.problem


def test_samples_with_tokens_that_the_model_does_not_know_are_left_out_and_counted(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = changed(tiny, tmp_path / "base", lambda tokenizer: tokenizer.add_tokens(["<extra>"]))
    strange = conversation("What is new?", "An <extra> word.")
    selection = make_selection(tmp_path / "selection", [*samples(3), strange])
    manifest = run(settings_of(base, max_left_out_share=0.25), selection=selection, out=tmp_path / "out")
    assert manifest.facts["dropped"] == {BEYOND: 1}
    monkeypatch.setattr("tamis.finetuning.training.train", None)
    with pytest.raises(InputError) as caught:
        run(settings_of(base), selection=selection, out=tmp_path / "none")
    assert "tokenizer" in caught.value.action


def test_words_of_control_tokens_are_trained_on_as_text_and_counted(tiny: Path, tmp_path: Path) -> None:
    quoted = conversation("What ends a turn?", "The token <|im_end|> does.")
    selection = make_selection(tmp_path / "selection", [*samples(3), quoted])
    assert run(settings_of(tiny), selection=selection, out=tmp_path / "out").facts["with_words_of_control_tokens"] == 1


def test_an_error_of_a_library_while_training_is_the_cell_s_alone(
    tiny: Path, selection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp import dsl

    from tamis.core.failures import failure_in
    from tamis.finetuning.component import finetune

    def train(*_: object) -> None:
        raise IndexError("index out of range in self")

    monkeypatch.setattr("tamis.finetuning.training.train", train)
    model = dsl.Model(uri=str(tmp_path / "out"))
    model.name = "model"
    finetune.python_func(
        selection=dsl.Dataset(uri=str(selection)),
        settings=settings_of(tiny).model_dump(),
        model=model,
        metrics=dsl.Metrics(uri=str(tmp_path / "metrics")),
    )
    failure = failure_in(tmp_path / "out")
    assert failure is not None
    assert (failure.name, failure.code) == ("dozen", "unexpected")


@pytest.mark.parametrize("targets", [["lm_head"], ["input_layernorm"], ["query"]])
def test_targets_that_cannot_be_trained_are_refused_before_anything_is_tokenised(
    tiny: Path, selection: Path, tmp_path: Path, targets: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tamis.core.conversations.chat_tokenizer", None)
    with pytest.raises(SettingsError) as caught:
        run(settings_of(tiny, lora={"targets": targets}), selection=selection, out=tmp_path / "out")
    assert "embed_tokens" in caught.value.allowed
    assert "lm_head" not in caught.value.allowed


def test_the_last_layers_need_modules_with_names(tiny: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        settings_of(tiny, lora={"targets": "all-linear", "layers": 1})
    assert "lora" in caught.value.problem


@pytest.mark.parametrize(
    ("targets", "tied"), [(["embed_tokens"], False), (["q_proj", "embed_tokens"], False), ("all-linear", True)]
)
def test_the_merged_model_is_the_trained_one_where_embeddings_are_tied(
    tiny: Path, selection: Path, tmp_path: Path, targets: Any, tied: bool
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    settings = settings_of(tiny, lora={"rank": 4, "targets": targets}, learning_rate=0.05)
    manifest = run(settings, selection=selection, out=tmp_path / "out")
    merged, base = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path / "out", tiny))
    tokens = list(range(100, 150))
    before = logits_of(base, tokens)
    with warnings.catch_warnings(action="ignore"):  # of adapters on tied embeddings
        model = PeftModel.from_pretrained(base, str(tmp_path / "out" / "adapter"))
    adapted = logits_of(model, tokens)
    np.testing.assert_allclose(logits_of(merged, tokens), adapted, atol=1e-4)
    assert np.abs(adapted - before).max() > 1e-2
    assert merged.config.tie_word_embeddings is tied
    assert manifest.facts["merge_error"] < 1e-3


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_merged_model_that_is_not_the_trained_one_is_an_error_and_leaves_no_artifact(
    tiny: Path, selection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings that stay tied: the adapter of the one changes the other when it is merged."""
    from peft import PeftModel

    monkeypatch.setattr("tamis.finetuning.merging._adapted", lambda base, path: PeftModel.from_pretrained(base, path))
    settings = settings_of(tiny, lora={"rank": 4, "targets": ["embed_tokens"]}, learning_rate=0.05)
    with pytest.raises(ModelError) as caught:
        run(settings, selection=selection, out=tmp_path / "out")
    assert "lora.targets" in caught.value.action
    assert not (tmp_path / "out").exists()


def test_a_subset_of_which_nothing_is_left_is_an_error(tiny: Path, tmp_path: Path) -> None:
    selection = make_selection(tmp_path / "selection", [conversation("word " * 50, "Yes.")])
    with pytest.raises(InputError, match="1 of 1 samples"):
        run(settings_of(tiny, max_tokens=16), selection=selection, out=tmp_path / "out")


def test_what_was_shortened_and_dropped_is_counted(tiny: Path, tmp_path: Path) -> None:
    selection = make_selection(tmp_path / "selection", [*samples(3), conversation("word " * 200, "Yes.")])
    manifest = run(settings_of(tiny, max_tokens=128, max_left_out_share=0.5), selection=selection, out=tmp_path / "out")
    assert (manifest.rows, manifest.facts["samples"]) == (3, 3)
    assert manifest.facts["dropped"] == {"no token of an answer within max_tokens": 1}


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_model(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from torch.testing import assert_close

    selection = make_selection(tmp_path / "selection", samples(12))
    settings = settings_of(tiny, epochs=20, batch_size=2, save_every_steps=10)  # 120 steps, six an epoch
    whole = run(settings, selection=selection, out=tmp_path / "whole")

    code = (
        "import sys\nfrom tamis.finetuning.settings import FinetuningSettings\nfrom tamis.finetuning.stage import run\n"
        "run(FinetuningSettings.model_validate_json(sys.argv[1]), selection=sys.argv[2], out=sys.argv[3])"
    )
    command = [sys.executable, "-c", code, settings.model_dump_json(), selection, tmp_path / "resumed"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "components")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob(".finetuning-*.scratch/checkpoints/*/complete")):
            assert process.poll() is None, "training ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "resumed").exists()

    resumed = run(settings, selection=selection, out=tmp_path / "resumed")
    assert resumed.facts["steps"] == whole.facts["steps"] == 120
    np.testing.assert_allclose(
        [row["loss"] for row in history_of(tmp_path / "resumed")],
        [row["loss"] for row in history_of(tmp_path / "whole")],
        rtol=1e-5,
    )
    weights = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "resumed")]
    for name, weight in weights[0].items():
        assert_close(weights[1][name], weight, atol=1e-5, rtol=1e-4)


def test_the_component_trains_and_reports(tiny: Path, selection: Path, tmp_path: Path) -> None:
    from kfp import dsl

    from tamis.finetuning.component import finetune

    model, metrics = dsl.Model(uri=str(tmp_path / "out")), dsl.Metrics(uri=str(tmp_path / "metrics"))
    finetune.python_func(
        selection=dsl.Dataset(uri=str(selection)),
        settings=settings_of(tiny).model_dump() | {"epochs": 1.0},
        model=model,
        metrics=metrics,
    )
    assert (model.metadata["kind"], model.metadata["name"], model.metadata["rows"]) == ("model", "dozen", 12)
    assert metrics.metadata["last_loss"] > 0
    assert Artifact.open(tmp_path / "out", "model").manifest.config == FinetuningSettings(
        **settings_of(tiny).model_dump()
    ).model_dump(mode="json")
