"""Finetuning on a CPU: tokens a second, and how far DeepSpeed's losses are from those of one plain process.

    python examples/demo/prepare.py --models-only build/demo
    python benchmarks/training.py                 # both parts
    python benchmarks/training.py speed           # one of them: agreement, speed

SmolLM2-135M learns Python's docstrings with a LoRA adapter of rank 8. The agreement needs `tamis[deepspeed]`. Every
figure comes from a run of the stage in a process of its own; Markdown tables go to benchmarks/results/training.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples/demo")]
RESULTS = ROOT / "benchmarks/results/training.md"
MODEL = ROOT / "build/demo/models/smollm2"
BASIC: dict[str, Any] = {"model": str(MODEL), "format": "chat", "epochs": 1, "batch_size": 8, "micro_batch_size": 2}
BASIC |= {"learning_rate": 1e-3, "max_tokens": 256, "lora": {"rank": 8, "dropout": 0}, "processes": 1}
# Steps of few tokens, the last one short; gradients of the last layers only: this is about agreement.
SHORT: dict[str, Any] = {"batch_size": 4, "micro_batch_size": 1, "max_tokens": 96}
SHORT |= {"lora": {"rank": 8, "dropout": 0, "layers": 6}, "save_every_steps": 1}
# One thread a process: then one process and two do the same work on as many cores, also on a busy machine.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "components"), "OMP_NUM_THREADS": "1"}
CODE = (
    "import sys\nfrom tamis.core.progress import set_up_logging\nset_up_logging()\n"
    "from tamis.finetuning.settings import FinetuningSettings\nfrom tamis.finetuning.stage import run\n"
    "run(FinetuningSettings.model_validate_json(sys.argv[1]), selection=sys.argv[2], out=sys.argv[3])"
)


def subset(folder: Path, count: int) -> Path:
    """A selection of `count` questions about the standard library with docstrings as answers."""
    import docstrings

    from tests.artifacts import make_selection

    messages = [row["messages"] for row in docstrings.pairs(count)]
    return make_selection(folder / f"subset-{count}", messages, name="docstrings")


def command_of(values: dict[str, Any], selection: Path, out: Path) -> list[str]:
    from tamis.finetuning.settings import FinetuningSettings

    settings = FinetuningSettings.model_validate(BASIC | values)
    return [sys.executable, "-W", "ignore", "-c", CODE, settings.model_dump_json(), str(selection), str(out)]


def trained(values: dict[str, Any], selection: Path, out: Path) -> tuple[dict[str, Any], list[float]]:
    """Facts and losses of one training."""
    print(values, file=sys.stderr, flush=True)
    subprocess.run(command_of(values, selection, out), check=True, env=ENVIRONMENT)
    history = json.loads((out / "training.json").read_text())["history"]
    return json.loads((out / "manifest.json").read_text())["facts"], [row["loss"] for row in history]


def killed(values: dict[str, Any], selection: Path, out: Path) -> None:
    """Start a training and kill its processes when the first checkpoint is whole."""
    import psutil

    with subprocess.Popen(command_of(values, selection, out), env=ENVIRONMENT) as process:
        while not list(out.parent.glob(".finetuning-*.scratch/checkpoints/*/complete")):
            if process.poll() is not None:
                sys.exit("training ended before it could be killed")
            time.sleep(0.05)
        launcher = psutil.Process(process.pid)
        for member in (launcher, *launcher.children(recursive=True)):
            member.kill()


def speed(work: Path) -> list[str]:
    """Tokens a second by micro-batch, packing and processes."""
    selection = subset(work, 16)
    lines = [
        "| processes | micro-batch | packing | tokens | seconds | tokens/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    one, two = [(1, micro, False) for micro in (1, 2, 4, 8)], [(2, micro, False) for micro in (1, 2, 4)]
    for processes, micro, packing in (*one, (1, 1, True), *two):
        values = {"processes": processes, "micro_batch_size": micro, "packing": packing}
        facts, _ = trained(values, selection, work / f"speed-{processes}-{micro}-{packing}")
        tokens, seconds = facts["tokens"], facts["training_seconds"]
        packed = "yes" if packing else "no"
        lines.append(f"| {processes} | {micro} | {packed} | {tokens:,} | {seconds:.1f} | {tokens / seconds:.0f} |")
    return lines


def agreement(work: Path) -> list[str]:
    """Largest differences of the losses from those of one plain process in float32, with and without a kill."""
    selection = subset(work, 14)
    lines = [
        "The largest difference is relative, of any step's loss. The probe is how far the saved model's logits are",
        "from the base model's on a question; every run has passed the stage's own checks of the adapter.",
        "",
        "| processes | DeepSpeed | precision | steps | last loss | largest difference | probe |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    exact: list[float] = []
    for processes, stage, precision, interrupted in (
        (1, None, "float32", False),
        (2, None, "float32", False),
        *((2, stage, "float32", interrupted) for stage in ("zero2", "zero3") for interrupted in (False, True)),
        (1, None, "bfloat16", False),
        *((2, stage, "bfloat16", False) for stage in ("zero2", "zero3")),
    ):
        values = {"processes": processes, "deepspeed": stage, "precision": precision, **SHORT}
        out = work / f"{processes}-{stage}-{precision}-{interrupted}" / "out"
        if interrupted:
            killed(values, selection, out)
        facts, losses = trained(values, selection, out)
        exact = exact or losses
        largest = max(abs(one - other) / other for one, other in zip(losses, exact, strict=True))
        what = f"{stage or '-'}{', killed after step 1, resumed' if interrupted else ''}"
        figures = f"{len(losses)} | {losses[-1]:.5f} | {largest:.1e} | {facts['probe_difference']:.3f}"
        lines.append(f"| {processes} | {what} | {precision} | {figures} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


PARTS = {
    "agreement": ("Agreement with one process in float32", agreement),
    "speed": ("Speed", speed),
}


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is given")
    given = parser.parse_args()
    if not MODEL.is_dir():
        sys.exit(f"{MODEL} is missing; to do: python examples/demo/prepare.py --models-only build/demo")
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part is called '{unknown.pop()}'; allowed: {', '.join(PARTS)}")
    machine = f"{os.cpu_count()} cores of {platform.machine()}, torch {torch.__version__}, one thread a process"
    lines = ["# Finetuning on a CPU", "", f"SmolLM2-135M, LoRA of rank 8, {machine}."]
    for part in given.parts or PARTS:
        title, measure = PARTS[part]
        if part == "agreement" and find_spec("deepspeed") is None:
            print("left out: agreement needs DeepSpeed (pip install 'tamis[deepspeed]')", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as work:
            lines += ["", f"## {title}", "", *measure(Path(work))]
        RESULTS.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
