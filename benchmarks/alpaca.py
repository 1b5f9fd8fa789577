"""Curation of the 52,002 samples of Stanford Alpaca with three models' ratings, by every mode.

    tamis run examples/alpaca-rated.yaml --set variables.alpaca=FILE.parquet
    python benchmarks/alpaca.py build/alpaca-rated

Curates the finished run's ratings again, twice in each mode, and compares modes, raters and times.
Prints Markdown tables and writes them to benchmarks/results/alpaca.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tamis.core.artifacts import Artifact
from tamis.curation.settings import CurationSettings
from tamis.curation.stage import run

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
RESULTS = ROOT / "benchmarks/results/alpaca.md"
SETTINGS: dict[str, dict[str, Any]] = {
    "exact": {"combine": True},
    "exact, confidence 0.5": {"confidence": 0.5},
    "paper": {"mode": "paper"},
    "paper, confidence 0.3": {"mode": "paper", "confidence": 0.3},
    "reference": {"mode": "reference"},
    "reference, confidence 0.3": {"mode": "reference", "confidence": 0.3},
}
PUBLISHED = "16,513 of GPT-4o-mini's at confidence 0.3 (the paper's code on these samples, with its own embeddings)"


def curate(work: Path, out: Path, options: dict[str, Any]) -> tuple[dict[str, Any], str, float]:
    """Diagnosis by rater, a checksum of everything written, and the seconds it took."""
    start = time.perf_counter()
    ratings = sorted((work / "ratings").iterdir())
    run(CurationSettings(**options), ratings=ratings, neighbors=work / "neighbors", out=out)
    seconds = time.perf_counter() - start
    files = sorted(file for file in out.iterdir() if file.name != "manifest.json")
    checksum = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    return json.loads((out / "diagnosis.json").read_text()), checksum, seconds


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shares(values: list[float]) -> str:
    return " ".join(f"{value:.2f}".lstrip("0") for value in values)


def matrix(values: list[list[float]]) -> str:
    return "<br>".join(shares(row) for row in values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="the finished run's folder")
    work = parser.parse_args().work
    samples = Artifact.open(work / "neighbors", "neighbors").manifest.rows
    counts, matrices, equal = [], [], []
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (mode, options) in enumerate(SETTINGS.items()):
            one, other = (curate(work, Path(folder) / f"{number}{twice}", options) for twice in "ab")
            found[mode] = one[0]
            equal.append([mode, f"{one[2]:.1f}", "yes" if one[1] == other[1] else "NO"])
            for rater, diagnosis in one[0].items():
                of = diagnosis["counts"]
                by_class = " ".join(f"{count:,}" for count in of["curated_by_class"])
                counts.append([rater, mode, f"{of['flagged']:,}", f"{of['corrected']:,}", by_class])
                if "confidence" not in mode:
                    matrices.append([rater, mode, matrix(diagnosis["T"]), shares(diagnosis["p"])])
    exact = found["exact"]
    raters = [rater for rater in exact if rater != "combined"]
    raw = [[rater, " ".join(f"{count:,}" for count in exact[rater]["counts"]["raw_by_class"])] for rater in raters]
    checked = [
        [rater, matrix(exact[rater]["check_by_raters"]["T"]), f"{exact[rater]['check_by_raters']['difference']:.3f}"]
        for rater in raters
    ]
    columns = [(kind, state) for kind in ("exact", "correlation") for state in ("raw", "curated")]
    agreed = [
        [f"{one} and {other}", *(f"{pair[state][kind]:.3f}" for kind, state in columns)]
        for one in raters
        for other, pair in exact[one]["agreement"].items()
        if one < other
    ]
    head = ["rater", "mode", "flagged", "corrected", "samples by class 0..5 afterwards"]
    parts = [
        f"# {samples:,} samples of Stanford Alpaca, three raters",
        "## As rated\n\n" + table(["rater", "samples by class 0..5"], raw),
        f"## Corrections by mode\n\nPublished: {PUBLISHED}.\n\n" + table(head, counts),
        "## Transition matrices (rows true, columns rated) and priors\n\n"
        + table(["rater", "mode", "T", "p"], matrices),
        "## T by the raters' agreement alone (Dawid and Skene), without neighbours\n\n"
        + table(["rater", "T", "mean difference from exact"], checked),
        "## How far raters agree, before and after exact curation\n\n"
        + table(["raters", "equal", "equal, curated", "correlation", "correlation, curated"], agreed),
        "## Time of all raters, and whether a second run wrote the same bytes\n\n"
        + table(["mode", "seconds", "same bytes"], equal),
    ]
    text = "\n\n".join(parts) + "\n"
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
