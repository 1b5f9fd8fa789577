"""Finetuning on a CPU: DeepSpeed against one plain process, kills, what an adapter changes, tokens a second.

    tamis demo build/demo --prepare models
    python benchmarks/training.py                 # all parts
    python benchmarks/training.py kills speed     # some of them: agreement, kills, speed

SmolLM2-135M learns Python's docstrings with a LoRA adapter of rank 8. All parts but the last need `tamis[deepspeed]`.
Every training is a run of the stage in a process of its own; Markdown tables go to benchmarks/results/training.md,
where those of the other parts stay.
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
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results/training.md"
MODEL = ROOT / "build/demo/models/smollm2"
BASIC: dict[str, Any] = {"model": str(MODEL), "format": "chat", "epochs": 1, "batch_size": 8, "micro_batch_size": 2}
BASIC |= {"learning_rate": 1e-3, "max_tokens": 256, "lora": {"rank": 8, "dropout": 0}, "processes": 1}
# Twelve steps of few tokens, in two epochs: this is about agreement.
SHORT: dict[str, Any] = {"batch_size": 4, "micro_batch_size": 1, "max_tokens": 64, "epochs": 2}
SHORT |= {"lora": {"rank": 8, "dropout": 0, "layers": 10}}
SAMPLES, SAVED = 24, 7  # the checkpoint is in the second epoch
STAGES = ("zero2", "zero3")
# One thread a process: then one process and two do the same work on as many cores, also on a busy machine.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT / "components"), "OMP_NUM_THREADS": "1"}
CODE = (
    "import sys\nfrom tamis.core.progress import set_up_logging\nset_up_logging()\n"
    "from tamis.finetuning.settings import FinetuningSettings\nfrom tamis.finetuning.stage import run\n"
    "run(FinetuningSettings.model_validate_json(sys.argv[1]), selection=sys.argv[2], out=sys.argv[3])"
)


def subset(folder: Path, count: int) -> Path:
    """A selection of `count` questions about the standard library with docstrings as answers."""
    from tamis.demo import docstrings
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


def killed(values: dict[str, Any], selection: Path, out: Path) -> str:
    """Start a training and kill its processes when a checkpoint is whole; returns the checkpoint's name."""
    import psutil

    with subprocess.Popen(command_of(values, selection, out), env=ENVIRONMENT) as process:
        while not (whole := list(out.parent.glob(".finetuning-*.scratch/checkpoints/*/complete"))):
            if process.poll() is not None:
                sys.exit("training ended before it could be killed")
            time.sleep(0.05)
        launcher = psutil.Process(process.pid)
        for member in (launcher, *launcher.children(recursive=True)):
            member.kill()
    if out.exists():
        sys.exit("training ended before it could be killed")
    return whole[0].parent.name


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
    """Largest differences of the losses from those of one plain process."""
    selection = subset(work, SAMPLES)
    lines = [
        f"{SAMPLES} samples, 12 steps, no dropout, float32. The largest difference is relative, of any step's loss",
        "from that of one process. The probe is how far the saved model's logits are from the base model's on a",
        "question; every run has passed the stage's own checks of the adapter.",
        "",
        "| processes | DeepSpeed | first loss | last loss | largest difference | probe |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    exact: list[float] = []
    for processes, stage in ((1, None), *((2, stage) for stage in STAGES)):
        values = SHORT | {"processes": processes, "deepspeed": stage, "precision": "float32"}
        facts, losses = trained(values, selection, work / f"{processes}-{stage}" / "out")
        exact = exact or losses
        figures = f"{losses[0]:.5f} | {losses[-1]:.5f} | {apart(losses, exact):.1e} | {facts['probe_difference']:.3f}"
        lines.append(f"| {processes} | {stage or '-'} | {figures} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def apart(losses: list[float], others: list[float]) -> float:
    """The largest relative difference between two loss curves."""
    return max(abs(one - other) / other for one, other in zip(losses, others, strict=True))


def kills(work: Path) -> list[str]:
    """The losses of trainings that were killed and resumed beside those of whole ones; what the adapter changes."""
    selection = subset(work, SAMPLES)
    curves: dict[str, list[float]] = {}
    for stage in STAGES:
        values = SHORT | {"processes": 2, "deepspeed": stage, "save_every_steps": SAVED}
        values |= {"lora": SHORT["lora"] | {"dropout": 0.1}}
        _, curves[stage] = trained(values, selection, work / stage / "out")
        newest = killed(values, selection, work / f"{stage}-resumed" / "out")
        _, curves[f"{stage}, resumed from {newest}"] = trained(values, selection, work / f"{stage}-resumed" / "out")
    columns = list(curves)
    differences = [f"{apart(curves[columns[i + 1]], curves[columns[i]]):.1e}" for i in (0, 2)]
    return [
        f"Two processes, {SAMPLES} samples, 12 steps, dropout 0.1, float32. All processes are killed (SIGKILL) when",
        f"the checkpoint of step {SAVED} is whole; the same command goes on from it. Losses by step:",
        "",
        f"| step | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
        *(
            f"| {step} | {' | '.join(f'{loss:.6f}' for loss in losses)} |"
            for step, losses in enumerate(zip(*curves.values(), strict=True), 1)
        ),
        "",
        f"Largest relative difference: {differences[0]} (stage 2), {differences[1]} (stage 3).",
        "",
        *answers(selection, work / "zero3/out/adapter", work / "zero3-resumed/out/adapter"),
    ]


def answers(selection: Path, whole: Path, resumed: Path) -> list[str]:
    """What the base model answers, and what it does with each of two adapters."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    with (selection / "subset.jsonl").open(encoding="utf-8") as file:
        questions = [json.loads(line)["messages"][0]["content"] for line in file][::6]
    given: list[list[str]] = []
    for adapter in (None, whole, resumed):
        model: Any = AutoModelForCausalLM.from_pretrained(MODEL)
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter))
        given.append([answer(model, tokenizer, question) for question in questions])
    changed = sum(one != other for one, other in zip(given[0], given[2], strict=True))
    same = sum(one == other for one, other in zip(given[1], given[2], strict=True))
    rows = zip(questions, given[0], given[2], strict=True)
    return [
        f"The adapter of the resumed stage 3, loaded by PEFT beside the base model, changes {changed} of the answers",
        f"to {len(questions)} questions of the subset (16 tokens, greedy); {same} are those that the adapter of the",
        "whole training gives:",
        "",
        "| question | base | with the adapter |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(' '.join(text.split()).replace('|', chr(92) + '|') for text in row)} |" for row in rows),
    ]


def answer(model: Any, tokenizer: Any, question: str) -> str:
    """The beginning of a model's answer."""
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    tokens = model.generate(**asked, max_new_tokens=16, do_sample=False)[0, asked["input_ids"].shape[1] :]
    text: str = tokenizer.decode(tokens, skip_special_tokens=True)
    return text


PARTS = {
    "agreement": ("Agreement with one process", agreement),
    "kills": ("Killed and resumed", kills),
    "speed": ("Speed", speed),
}


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all if none is given")
    given = parser.parse_args()
    if not MODEL.is_dir():
        sys.exit(f"{MODEL} is missing; to do: tamis demo build/demo --prepare models")
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part is called '{unknown.pop()}'; allowed: {', '.join(PARTS)}")
    machine = f"{os.cpu_count()} cores of {platform.machine()}, torch {torch.__version__}, one thread a process"
    head = f"# Finetuning on a CPU\n\nSmolLM2-135M, LoRA of rank 8, {machine}."
    for part in given.parts or PARTS:
        title, measure = PARTS[part]
        if part != "speed" and find_spec("deepspeed") is None:
            print(f"left out: {part} needs DeepSpeed (pip install 'tamis[deepspeed]')", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as work:
            section = "\n".join([title, "", *measure(Path(work))])
        print(section)
        old = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else head
        kept = {text.splitlines()[0]: text.strip() for text in old.split("\n## ")[1:]} | {title: section}
        RESULTS.write_text("\n\n## ".join([head, *kept.values()]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
