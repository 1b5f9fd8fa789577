"""Near-copies: speed, memory, precision and recall on texts with planted near-copies, and the libraries compared.

    python benchmarks/nearcopies.py --texts 1000000               # the stage, on a pool of that size
    python benchmarks/nearcopies.py --texts 20000 --libraries     # signatures and candidates by each library

Five of 100 texts are near-copies of another one: in capitals, with other white space, with a typing error, with a
sentence more or, in texts of at least 25 words, with another word. Another five of 100 only resemble one: a fifth to
half of the words is changed. They must be kept. One text in five is written without spaces, as Chinese is.

`datasketch` is compared only where it is installed; Tamis does not need it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tamis.nearcopies.settings import NearCopiesSettings
from tamis.nearcopies.shingles import jaccard, ngrams, normalized
from tamis.nearcopies.signatures import Buckets, bands, signatures
from tamis.nearcopies.stage import run as drop
from tamis.pool.settings import PoolSettings
from tamis.pool.stage import run as assemble

_ENDS = ("a", "e", "i", "o", "u", "an", "er", "il", "on")
_SYLLABLES = [a + b for a in [*"bcdfghlmnprstv", "st", "tr", "ch"] for b in _ENDS]
_HAN = [chr(0x4E00 + i) for i in range(3000)]


class Texts:
    """Texts whose words are as frequent as in natural language (Zipf)."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        words = ["".join(self._random.choices(_SYLLABLES, k=self._random.randint(1, 4))) for _ in range(30_000)]
        self._words, self._weights = words, np.cumsum(1 / (np.arange(len(words)) + 2.7)).tolist()

    def words(self, n: int) -> list[str]:
        return self._random.choices(self._words, cum_weights=self._weights, k=n)

    def rows(self, n: int) -> Iterator[tuple[list[str], str, int, str]]:
        """Words, separator, number of the original, or -1, and "original", "copy" or "alike"."""
        originals: list[tuple[list[str], str, int]] = []
        for number in range(n):
            kind = self._random.random()
            if kind < 0.1 and originals:
                words, space, of = self._random.choice(originals)
                if kind < 0.05:
                    yield *self._copied(words, space), of, "copy"
                else:
                    yield self._changed(words, self._random.uniform(0.2, 0.5), space), space, of, "alike"
                continue
            if self._random.random() < 0.2:
                made = self._random.choices(_HAN, k=self._random.randint(40, 160)), ""
            else:
                made = self.words(self._random.randint(15, 60)), " "
            if len(originals) < 200_000:
                originals.append((*made, number))
            else:
                originals[self._random.randrange(len(originals))] = (*made, number)
            yield *made, -1, "original"

    def _changed(self, words: list[str], share: float, space: str) -> list[str]:
        changed = list(words)
        for place in self._random.sample(range(len(words)), max(2, round(share * len(words)))):
            changed[place] = self.words(1)[0] if space else self._random.choice(_HAN)
        return changed

    def _copied(self, words: list[str], space: str) -> tuple[list[str], str]:
        way = self._random.randrange(5)
        place, copy = self._random.randrange(len(words)), list(words)
        if way == 0 and space:
            return [word.upper() for word in words], space
        if way == 1 and space:
            return words, "  \n"
        if way == 2 and len(words) >= 25 and space:
            copy[place] = self.words(1)[0]
        elif way == 3:
            copy += self.words(2) if space else self._random.choices(_HAN, k=2)
        elif space:
            word = copy[place]
            copy[place] = word[:-1] + self._random.choice("xyz")
        else:
            copy[place] = self._random.choice(_HAN)
        return copy, space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--libraries", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("build/nearcopies"))
    args = parser.parse_args()
    if args.libraries:
        compare(args.texts, args.seed)
    else:
        measure(args.texts, args.seed, args.folder)


def measure(n: int, seed: int, folder: Path) -> None:
    """Run the stage on `n` texts in `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as file:
        for number, (words, space, of, kind) in enumerate(Texts(seed).rows(n)):
            half = max(1, len(words) // 2)
            prompt, completion = space.join(words[:half]), space.join(words[half:])
            row = {"prompt": prompt, "completion": completion, "number": number, "of": of, "kind": kind}
            file.write(json.dumps(row) + "\n")
    source = {"name": "texts", "path": str(folder / "texts.jsonl"), "keep": ["number", "of", "kind"]}
    pool = assemble(PoolSettings.model_validate({"sources": [source]}), out=folder / "pool")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{n:,} rows, {pool.rows:,} samples; peak memory before the stage {before:,} MiB", flush=True)
    start, cpu = time.monotonic(), time.process_time()
    made = drop(NearCopiesSettings(), samples=folder / "pool", out=folder / "near")
    seconds, cpu = time.monotonic() - start, time.process_time() - cpu
    kinds = _kinds(folder)
    dropped = pq.read_table(folder / "near" / "clusters.parquet")["id"].to_pylist()
    right = sum(kinds[identity] == "copy" for identity in dropped)
    planted = sum(kind == "copy" for kind in kinds.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{seconds:.0f} s, {cpu:.0f} s of CPU, peak memory {peak:,} MiB; planted {planted:,}, "
        f"dropped {len(dropped):,}, precision {right / len(dropped):.4f}, recall {right / planted:.4f}; "
        f"{made.facts['near_copies']}"
    )


def _kinds(folder: Path) -> dict[str, str]:
    kinds: dict[str, str] = {}
    for part in sorted((folder / "pool").glob("part-*.parquet")):
        table = pq.read_table(part, columns=["id", "metadata"])
        metadata = [json.loads(text)["kind"] for text in table["metadata"].to_pylist()]
        kinds |= dict(zip(table["id"].to_pylist(), metadata, strict=True))
    return kinds


def compare(n: int, seed: int) -> None:
    """Signatures and candidate pairs by each library; every candidate is then compared exactly."""
    rows = list(Texts(seed).rows(n))
    texts = [normalized(space.join(words)) for words, space, _, _ in rows]
    planted = {number for number, row in enumerate(rows) if row[3] == "copy"}
    ways: dict[str, Callable[[list[str]], tuple[float, float, set[tuple[int, int]]]]] = {
        "rensa, hashes by numpy, bands by numpy": _flat,
        "rensa, its own hashes and LSH": _rensa,
    }
    if importlib.util.find_spec("datasketch"):
        ways["datasketch, its own hashes and LSH"] = _datasketch
    for name, way in ways.items():
        signed, searched, pairs = way(texts)
        true = {pair for pair in pairs if jaccard(ngrams(texts[pair[0]], 5), ngrams(texts[pair[1]], 5)) >= 0.8}
        found = {max(pair) for pair in true} & planted
        print(
            f"{name}: signatures {signed:.1f} s, candidates {searched:.1f} s, {len(pairs):,} pairs, "
            f"{len(true):,} at 0.8 or more, recall of planted {len(found) / len(planted):.4f}",
            flush=True,
        )


def _flat(texts: list[str]) -> tuple[float, float, set[tuple[int, int]]]:
    start = time.monotonic()
    matrix = np.concatenate([signatures(texts[at : at + 16_384], 5, 128, 0) for at in range(0, len(texts), 16_384)])
    signed = time.monotonic()
    buckets = Buckets.of(matrix, *bands(128, 0.8, 0.99))
    pairs = {(number, int(other)) for number in range(len(texts)) for other in buckets.after(number)}
    return signed - start, time.monotonic() - signed, pairs


def _rensa(texts: list[str]) -> tuple[float, float, set[tuple[int, int]]]:
    from rensa import RMinHash, RMinHashLSH

    start = time.monotonic()
    made = RMinHash.from_token_sets([list(ngrams(text, 5)) for text in texts], 128, 0)
    signed = time.monotonic()
    index = RMinHashLSH(0.8, 128, 32)  # it takes only numbers of bands that divide 128
    pairs = set()
    for number, one in enumerate(made):
        pairs |= {(other, number) for other in index.query(one)}
        index.insert(number, one)
    return signed - start, time.monotonic() - signed, pairs


def _datasketch(texts: list[str]) -> tuple[float, float, set[tuple[int, int]]]:
    from datasketch import MinHash, MinHashLSH

    start = time.monotonic()
    sets = [[gram.encode() for gram in ngrams(text, 5)] for text in texts]
    made = MinHash.bulk(sets, num_perm=128, seed=1)
    signed = time.monotonic()
    count, rows = bands(128, 0.8, 0.99)
    index = MinHashLSH(num_perm=128, params=(count, rows))
    pairs = set()
    for number, one in enumerate(made):
        pairs |= {(other, number) for other in index.query(one)}
        index.insert(number, one)
    return signed - start, time.monotonic() - signed, pairs


if __name__ == "__main__":
    main()
