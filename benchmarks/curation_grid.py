"""Curation on pools of every kind, against bars that it has to pass and against what users would pick instead.

    python benchmarks/curation_grid.py --jobs 2                       # all of it: hours; goes on where it was killed
    python benchmarks/curation_grid.py --quick                        # n = 400, one seed: a look
    python benchmarks/curation_grid.py --only grid --n 2000 --seeds 1 --filter "h=0.1 asym R=1"
    python benchmarks/curation_grid.py --only external                # other methods, in an environment made by pip

`grid` is every kind of pool, `gain` what curation has to reach at n = 5,000, `external` the other methods on the pools
of n = 2,000 without grades, and Tamis on the same ones. All figures are of samples without a grade, means over seeds.
Prints Markdown and writes it to benchmarks/results/curation_grid.md, section by section, unless the run was only a part
(--quick, --n, --filter).
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from curation_cells import ROOT, SURE, Cell, Run, run
from tables import Results, processor, table

RESULTS = ROOT / "benchmarks/results/curation_grid.md"
SIZES, SEEDS = (400, 2000, 10_000), (1, 2, 3, 4, 5)
RATERS = ((1, False), (2, False), (2, True), (3, False), (3, True))
GRID = [
    Cell(n, raters, shared, own, rater, grades)
    for n, (raters, shared), own, rater, grades in itertools.product(
        SIZES, RATERS, (0.1, 0.3, 0.6, 0.9), ("near", "asym", "mild"), (0, 100, 300)
    )
]
GAIN = {  # share right that has to be reached; all raters are of the kind `near`
    Cell(5000, raters, shared, own, "near", grades): least
    for raters, shared, own, grades, least in (
        (3, False, 0.1, 0, 0.90),
        (3, False, 0.3, 0, 0.80),
        (3, False, 0.6, 0, 0.68),
        (3, True, 0.1, 300, 0.88),
        (3, True, 0.4, 300, 0.69),
        (1, False, 0.1, 100, 0.80),
        (1, False, 0.3, 100, 0.66),
        (1, False, 0.1, 300, 0.82),
        (1, False, 0.3, 300, 0.67),
        (1, False, 0.1, 0, 0.72),
    )
}
DRAWS_OF_SHIFTS = 200
EXTERNAL_N, CLOSE, FAR, SHARE_CLOSE = 2000, 0.01, 0.03, 0.95
HARM, ENOUGH_SURE = 0.01, 100
ROUNDING = 1e-9  # of sums; no bar is failed by so little


@dataclass(frozen=True)
class Row:
    """A cell and its runs, one per seed."""

    cell: Cell
    runs: list[Run]

    @property
    def failed(self) -> str:
        return next((found["failed"] for found in self.runs if "failed" in found), "")

    def mean(self, name: str) -> float:
        """NaN where no seed has it."""
        values = [found[name] for found in self.runs if not np.isnan(found[name])]
        return float(np.mean(values)) if values else float("nan")

    def gained(self, after: str, before: str) -> str:
        """The mean change and its standard error over the seeds."""
        changes = [found[after] - found[before] for found in self.runs]
        spread = np.std(changes, ddof=1) / np.sqrt(len(changes)) if len(changes) > 1 else np.nan
        return f"{np.mean(changes):+.3f}" + ("" if np.isnan(spread) else f" ± {spread:.3f}")

    def total(self, name: str) -> int:
        return sum(found[name] for found in self.runs)

    @property
    def blind(self) -> bool:
        """Raters share errors, and no grade tells."""
        return self.cell.shared and not self.cell.grades

    @property
    def most_calibration_error(self) -> float:
        if self.cell.grades:
            most = 0.06 if self.cell.grades < 300 else 0.04
        elif self.cell.shared:
            most = 0.2
        else:
            most = 0.04 if self.cell.raters > 2 else 0.12
        return most + (0.03 if self.cell.n <= 400 else 0)

    @property
    def together(self) -> float:
        """Calibration error of all seeds' samples in the same bins: less of it is chance."""
        samples, said, right = np.sum([found["bins"] for found in self.runs], axis=0)
        return float(np.abs(said - right).sum() / samples.sum()) if samples.sum() else float("nan")

    @property
    def by_grades(self) -> float:
        """Calibration error of perfect confidences, shifted by what so many grades leave unknown of their mean."""
        rng, errors = np.random.default_rng(0), []
        for samples, said, _ in (np.array(found["bins"]) for found in self.runs if self.cell.grades):
            share, mean = said.sum() / samples.sum(), said / np.maximum(samples, 1)
            shift = rng.normal(0, np.sqrt(share * (1 - share) / self.cell.grades), (DRAWS_OF_SHIFTS, 1))
            chance = rng.normal(0, 1, (DRAWS_OF_SHIFTS, len(mean))) * np.sqrt(mean * (1 - mean) * samples)
            errors.append((np.abs(shift * samples + chance).sum(1) / samples.sum()).mean())
        return float(np.mean(errors)) if errors else self.mean("floor")

    @property
    def least_sure_right(self) -> float:
        return 0.65 if self.blind else 0.85

    @property
    def sure_right(self) -> float:
        return share(self.total("sure_right"), self.total("sure"))


@dataclass(frozen=True)
class Breach:
    """A cell that fails a bar: what was found, and how far beyond the bar that is."""

    cell: Cell
    found: str
    beyond: float


def share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def harm(row: Row) -> Breach | None:
    worse = row.mean("right_before") - row.mean("right"), row.mean("error") - row.mean("error_before")
    beyond = max(worse) - HARM
    text = (
        f"right {row.mean('right_before'):.3f} {row.gained('right', 'right_before')}, "
        f"error {row.mean('error_before'):.3f} {row.gained('error', 'error_before')}"
    )
    return Breach(row.cell, text, beyond) if beyond > ROUNDING else None


def miscalibrated(row: Row) -> Breach | None:
    beyond = row.mean("calibration") - row.most_calibration_error
    text = (
        f"{row.mean('calibration'):.3f} instead of {row.most_calibration_error:.2f}; {row.together:.3f} with the seeds "
        f"together; by chance {row.mean('floor'):.3f}, by grades {row.by_grades:.3f}; said of {row.mean('known'):.0%}"
    )
    return Breach(row.cell, text, beyond) if beyond > ROUNDING else None


def overconfident(row: Row) -> Breach | None:
    beyond = row.least_sure_right - row.sure_right
    text = f"{row.sure_right:.3f} of {row.total('sure'):,} right instead of {row.least_sure_right}"
    return Breach(row.cell, text, beyond) if row.total("sure") > ENOUGH_SURE and beyond > ROUNDING else None


BARS = {
    f"never harm: share right and mean absolute error no worse than raw by more than {HARM}": harm,
    "calibration error within its limit": miscalibrated,
    f"corrections said to be {SURE} sure are right, where there are more than {ENOUGH_SURE}": overconfident,
}


def verdicts(rows: list[Row]) -> str:
    """Each bar: how many cells fail it, and which."""
    usable = [row for row in rows if not row.failed]
    broken = [[row.cell.name, row.failed] for row in rows if row.failed]
    lines, lists = [["a result in every cell", str(len(rows)), str(len(broken)), ""]], []
    for title, bar in BARS.items():
        found = sorted(filter(None, map(bar, usable)), key=lambda breach: -breach.beyond)
        lines.append([title, str(len(usable)), str(len(found)), number(found[0].beyond) if found else ""])
        if bar is miscalibrated:
            chance = sum(row.by_grades > row.most_calibration_error for row in usable)
            lists.append(
                f"In {chance} cells perfect confidences whose mean is known from the grades alone would fail it."
            )
        if found:
            listed = [[f.cell.name, f.found, number(f.beyond)] for f in found]
            lists.append(f"### Fail: {title}\n\n" + table(["cell", "found", "beyond the bar"], listed))
    if broken:
        lists.append("### No result\n\n" + table(["cell", "reason"], broken))
    return "\n\n".join([table(["bar", "cells", "fail it", "worst, beyond the bar"], lines), *lists])


def all_cells(rows: list[Row]) -> str:
    head = ["raters", "kind", "h", "grades", "right, raw", "after", "possible"]
    head += ["error, raw", "after", "calibration error"]
    head += [
        "seeds together",
        "by chance",
        "by grades",
        "said of",
        "corrected",
        "of it right",
        f"{SURE} sure",
        "of it right",
        "s",
    ]
    lines = []
    for row in rows:
        cell, means = row.cell, ("right_before", "right", "possible", "error_before", "error", "calibration")
        names = [cell.of, cell.rater, f"{cell.own}", f"{cell.grades}"]
        if row.failed:
            lines.append([*names, row.failed] + [""] * (len(head) - len(names) - 1))
            continue
        corrected = number(share(row.total("corrected_right"), row.total("corrected")))
        line = [*names, *(number(row.mean(name)) for name in means), number(row.together), number(row.mean("floor"))]
        line.append(number(row.by_grades))
        line += [number(row.mean("known")), f"{row.total('corrected'):,}", corrected]
        lines.append([*line, f"{row.total('sure'):,}", number(row.sure_right), f"{row.mean('seconds'):.1f}"])
    return table(head, lines)


def grid(cells: list[Cell], seeds: list[int], jobs: int) -> Iterator[str]:
    rows = [Row(cell, runs) for cell, runs in run("ours", cells, seeds, jobs).items()]
    yield (
        f"## Bars of the grid\n\nMeans of {len(seeds)} seeds. A cell is n samples, of which a share h has a quality of "
        "its own rather than its neighbourhood's, R raters of a kind, sharing errors or not, and so many grades. "
        "`By chance`: the calibration error that a perfectly calibrated model with the same confidences would have. "
        "`By grades`: the same where the mean of its confidences is known from the grades alone.\n\n" + verdicts(rows)
    )
    for n in sorted({row.cell.n for row in rows}):
        yield f"## All cells, n = {n:,}\n\n" + all_cells([row for row in rows if row.cell.n == n])


def gain(cells: list[Cell], seeds: list[int], jobs: int) -> Iterator[str]:
    head = ["cell", "right, raw", "after", "has to be", "", "possible", "error, raw", "after", "calibration error"]
    lines = []
    for cell, runs in run("ours", cells, seeds, jobs).items():
        row, least = Row(cell, runs), GAIN[cell]
        if row.failed:
            lines.append([cell.name, row.failed] + [""] * (len(head) - 2))
            continue
        verdict = "passed" if row.mean("right") >= least else "**failed**"
        possible = number(row.mean("possible"))
        after = [number(row.mean(name)) for name in ("error_before", "error", "calibration")]
        lines.append(
            [
                cell.name,
                *map(number, (row.mean("right_before"), row.mean("right"))),
                f"{least:.2f}",
                verdict,
                possible,
                *after,
            ]
        )
    yield (
        f"## Gain at n = 5,000\n\nMeans of {len(seeds)} seeds. `Possible`: the share right of somebody who knows the "
        "clusters, h, every rater's matrix and who copies whom; no method can reach more.\n\n" + table(head, lines)
    )


@dataclass(frozen=True)
class Rival:
    """Another method on a cell: its means, or why it failed."""

    right: float = float("nan")
    error: float = float("nan")
    seconds: float = float("nan")
    failed: str = ""

    @classmethod
    def of(cls, runs: list[Run]) -> Rival:
        failed = next((found["failed"] for found in runs if "failed" in found), "")
        if failed:
            return cls(failed=failed)
        return cls(*(float(np.mean([found[name] for found in runs])) for name in ("right", "error", "seconds")))

    def ahead(self, row: Row) -> tuple[float, float]:
        """By how much it is better than Tamis, in share right and in mean absolute error."""
        return self.right - row.mean("right"), row.mean("error") - self.error


def external(cells: list[Cell], seeds: list[int], jobs: int) -> Iterator[str]:
    rows = {cell: Row(cell, runs) for cell, runs in run("ours", cells, seeds, jobs).items()}
    rivals: dict[Cell, dict[str, Rival]] = {}
    for cell, runs in run("external", cells, seeds, jobs).items():
        methods = dict.fromkeys(method for found in runs for method in found)
        rivals[cell] = {method: Rival.of([found[method] for found in runs]) for method in methods}
    names = list(dict.fromkeys(method for found in rivals.values() for method in found))
    yield f"## Against other methods\n\nMeans of {len(seeds)} seeds. " + compared(rows, rivals, names)
    head = ["n", "raters", "kind", "h", "Tamis", *names]
    lines = []
    for cell in cells:
        mine = "failed" if rows[cell].failed else f"{rows[cell].mean('right'):.3f} / {rows[cell].mean('error'):.3f}"
        line = [f"{cell.n:,}", cell.of, cell.rater, f"{cell.own}", mine]
        for name in names:
            other = rivals[cell].get(name)
            told = "" if other is None else "failed" if other.failed else f"{other.right:.3f} / {other.error:.3f}"
            line.append(told)
        lines.append(line)
    yield "## Every method, by cell\n\nNo grades; share right / mean absolute error.\n\n" + table(head, lines)


def leads(rows: dict[Cell, Row], rivals: dict[Cell, dict[str, Rival]]) -> list[tuple[float, Cell, str, str]]:
    """Where another method is better, in share right or in mean absolute error: by how much, cell, method, figures."""
    found = []
    for cell, row in rows.items():
        for name, other in rivals[cell].items():
            ahead = 0.0 if row.failed or other.failed else max(other.ahead(row))
            if ahead > CLOSE + ROUNDING:
                mine = f"Tamis {row.mean('right'):.3f} / {row.mean('error'):.3f}"
                found.append((ahead, cell, name, f"{other.right:.3f} / {other.error:.3f}; {mine}"))
    return sorted(found, key=lambda lead: (-lead[0], lead[1]))


def summary(name: str, rows: dict[Cell, Row], rivals: dict[Cell, dict[str, Rival]]) -> list[str]:
    """A method's line: means over the cells in which it and Tamis have a result, beside Tamis' means over the same."""
    tried = [(rows[cell], found[name]) for cell, found in rivals.items() if name in found and not rows[cell].failed]
    told = [(row, other) for row, other in tried if not other.failed]
    counts = [name, f"{len(told)}", f"{len(tried) - len(told)}"]
    if not told:
        return counts + [""] * 7
    pairs = [(other.right, row.mean("right"), other.error, row.mean("error")) for row, other in told]
    better = (np.array([other.ahead(row) for row, other in told]) > CLOSE + ROUNDING).sum(0)
    seconds = np.mean([other.seconds for _, other in told])
    return [*counts, *(number(value) for value in np.mean(pairs, 0)), *map(str, better), f"{seconds:.1f}"]


def compared(rows: dict[Cell, Row], rivals: dict[Cell, dict[str, Rival]], names: list[str]) -> str:
    """The bar on other methods, each method's summary, the cells in which one is better, and failures."""
    better = leads(rows, rivals)
    far = {cell for ahead, cell, _, _ in better if ahead > FAR + ROUNDING}
    lost = {cell for _, cell, _, _ in better} | {cell for cell, row in rows.items() if row.failed}
    held = 1 - len(lost) / len(rows)
    said = ["passed" if passed else "**failed**" for passed in (held >= SHARE_CLOSE, not far)]
    head = ["method", "cells", "failed", "right", "Tamis there", "error", "Tamis there", "better in right", "in error"]
    parts = [
        f"No method better by more than {CLOSE}, in share right or in mean absolute error, in {held:.1%} of "
        f"{len(rows)} cells (has to be {SHARE_CLOSE:.0%}: {said[0]}); one is better by more than {FAR} in {len(far)} "
        f"cells (has to be none: {said[1]}).",
        table([*head, "s"], [summary(name, rows, rivals) for name in names]),
    ]
    if better:
        lines = [[cell.name, name, text, f"{ahead:.3f}"] for ahead, cell, name, text in better]
        parts.append("### Where one is better\n\n" + table(["cell", "method", "right / error", "by"], lines))
    broken = {(name, o.failed): cell.name for cell, found in rivals.items() for name, o in found.items() if o.failed}
    broken |= {("Tamis", row.failed): cell.name for cell, row in rows.items() if row.failed}
    if broken:
        lines = [[name, reason, cell] for (name, reason), cell in broken.items()]
        parts.append("### No result\n\n" + table(["method", "reason", "such as"], lines))
    return "\n\n".join(parts)


def cells_of(section: str, options: argparse.Namespace) -> list[Cell]:
    cells = {"grid": GRID, "gain": list(GAIN), "external": [c for c in GRID if c.n == EXTERNAL_N and not c.grades]}
    sizes = options.n or ([SIZES[0]] if options.quick else [])
    if section == "external" and sizes:  # the other sizes' pools will do for a look
        chosen = [cell for cell in GRID if cell.n in sizes and not cell.grades]
    else:
        chosen = [cell for cell in cells[section] if not sizes or cell.n in sizes]
    words = options.filter or []
    return [cell for cell in chosen if all(word in cell.name for word in words)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = {"grid": grid, "gain": gain, "external": external}
    parser.add_argument("--only", nargs="+", choices=list(sections))
    parser.add_argument("--quick", action="store_true", help="n = 400 and one seed")
    parser.add_argument("--n", nargs="+", type=int, help="only pools of these sizes")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--filter", nargs="+", help='only cells with all of these in their name: "near R=3" grades=0')
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    options = parser.parse_args()
    seeds = options.seeds or list(SEEDS[:1] if options.quick else SEEDS)
    whole = not (options.quick or options.n or options.filter)
    head = (
        f"# Curation on pools of every kind\n\n{os.cpu_count()} cores, {processor()}, numpy {np.__version__}. "
        "Samples with a grade are left out of all figures."
    )
    results = Results(Path(RESULTS), head)
    for name in options.only or sections:
        cells = cells_of(name, options)
        if not cells:
            print(f"{name}: no such cells", file=sys.stderr)
            continue
        for section in sections[name](cells, seeds, options.jobs):
            print(section, end="\n\n", flush=True)
            if whole:
                results.put(section)


if __name__ == "__main__":
    main()
