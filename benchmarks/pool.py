"""How fast the pool stage reads each format, with how many processes, and how much memory it needs.

    python benchmarks/pool.py --rows 300000 --processes 1 2

The conversations are made of a fixed vocabulary, with 1.2 kB of text each. Every pool is made by a process of its own.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import hashlib
import json
import lzma
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "components"), str(ROOT / "benchmarks")]

import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from tables import Results, processor, table  # noqa: E402

FORMATS = ("jsonl", "jsonl.gz", "jsonl.zst", "jsonl.bz2", "jsonl.xz", "csv", "parquet", "arrow")
RESULTS = ROOT / "benchmarks" / "results" / "pool.md"
HEAD = "# Reading sources\n\nMade by `benchmarks/pool.py`. The pools of one format have equal bytes."
_MIB = 1 << 20


def rows(count: int) -> list[dict[str, str]]:
    """Pairs of an instruction and an answer."""
    random_ = random.Random(1)
    words = [f"w{number}" * random_.randint(1, 2) for number in range(3000)]

    def text(longest: int) -> str:
        return " ".join(random_.choices(words, k=random_.randint(5, longest)))

    return [{"id": str(number), "prompt": text(60), "completion": text(250)} for number in range(count)]


def write(path: Path, made: list[dict[str, str]]) -> None:
    """Write the rows to `path` in the format that its name says."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(made[0]))
            writer.writeheader()
            writer.writerows(made)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(made), path)  # one row group for up to 2**20 rows, as pandas writes it
    elif path.suffix == ".arrow":
        whole = pa.Table.from_pylist(made)
        with pa.ipc.new_file(path, whole.schema) as file:
            file.write_table(whole)
    else:
        text = "".join(json.dumps(row) + "\n" for row in made).encode()
        if path.suffix == ".zst":
            text = pa.compress(text, codec="zstd", asbytes=True)
        elif path.suffix != ".jsonl":
            text = {".gz": gzip, ".bz2": bz2, ".xz": lzma}[path.suffix].compress(text)
        path.write_bytes(text)


def measure(path: Path, processes: int) -> None:
    """Make a pool and print its figures as JSON."""
    from tamis.core.settings import parse
    from tamis.pool.settings import PoolSettings
    from tamis.pool.stage import run

    values = {"processes": processes, "sources": [{"name": "a", "path": str(path)}]}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        start = time.perf_counter()
        made = run(parse(PoolSettings, values, where="benchmark"), out=f"{folder}/pool")
        seconds = time.perf_counter() - start
        own, each = _used(resource.RUSAGE_SELF), _used(resource.RUSAGE_CHILDREN)
        memory = [_own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 if processes > 1 else 0]
        digest = hashlib.sha256()
        for part in sorted(Path(folder, "pool").glob("part-*")):
            digest.update(part.read_bytes())
    figures = {"rows": made.rows, "seconds": seconds, "memory": memory, "cpu": [own, each]}
    print(json.dumps(figures | {"digest": digest.hexdigest()}))


def _used(who: int) -> float:
    """Seconds of CPU time, which depend little on what else the machine does."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _own_peak() -> float:
    """This process's peak memory in MiB. (`ru_maxrss` would include that of the process that started it.)"""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure every format with every number of processes, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--folder", type=Path, help="where to write the files; a temporary folder if not given")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.processes[0])
        return
    lines = []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        made = rows(options.rows)
        for kind in options.formats:
            path = Path(folder, f"a.{kind}")
            write(path, made)
            found = []
            for processes in options.processes:
                command = [sys.executable, __file__, "--measure", str(path), "--processes", str(processes)]
                run = subprocess.run(command, check=True, stdout=subprocess.PIPE)
                found.append(json.loads(run.stdout.splitlines()[-1]))
                rate = found[-1]["rows"] / found[-1]["seconds"]
                size = f"{path.stat().st_size / _MIB:,.0f} MiB"
                figures = [f"{seconds:,.1f}" for seconds in found[-1]["cpu"]] + [
                    f"{mib:,.0f}" for mib in found[-1]["memory"]
                ]
                lines.append([kind, size, str(processes), f"{rate:,.0f}", *figures])
                print(lines[-1], flush=True)
            if len({one["digest"] for one in found}) > 1:
                raise SystemExit(f"{kind}: the pools differ by the number of processes")
            path.unlink()
    head = ["format", "size", "processes", "rows per second", "CPU seconds of the stage", "of the processes that parse"]
    head += ["peak MiB of the stage", "of each process that parses"]
    load = f"{processor()}, {os.cpu_count()} cores; at the end the mean load of 15 minutes was {os.getloadavg()[2]:.1f}"
    Results(RESULTS, HEAD).put(f"## {options.rows:,} rows\n\n{load}\n\n{table(head, lines)}")


if __name__ == "__main__":
    main()
