"""The setting `sample`: draws the part of a pool that is rated, evenly from every source."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.idfiles import read_ids
from tamis.core.ids import Keys, pack, positions, tie_breaks
from tamis.rating.settings import AskedRater
from tamis.rating.spreading import spread_order

_ROWS = 100_000  # read together
_SALT = "sample"


@dataclass(frozen=True)
class Also:
    """Samples listed in files, which are rated in addition to those that are drawn.

    Attributes:
        ids: number of different ids in the files.
        unknown: number of these that are not in the pool.
        added: number of samples that were not already drawn.
        digest: hash of the set of ids, 16 hex digits.
    """

    ids: int
    unknown: int
    added: int
    digest: str


@dataclass(frozen=True)
class Drawn:
    """The part of a pool that is rated.

    Attributes:
        mask: (n,) bool; whether each sample of the pool, in its order, is rated.
        sources: for each source of the pool, how many of its samples are rated, and how many it has.
        by: what the draw is even over: "source", or "source and embedding".
        also: the samples that files add, which are not spread evenly; None without files.
    """

    mask: NDArray[np.bool_]
    sources: dict[str, tuple[int, int]]
    by: str
    also: Also | None = None

    def __str__(self) -> str:
        asked, of, added = int(self.mask.sum()), len(self.mask), ""
        if self.also is not None:
            added = f" except for {self.also.added:,} added by 'also'"
            if self.also.unknown:
                added += f" ({self.also.unknown:,} of its {self.also.ids:,} ids are not in the pool)"
        return (
            f"{asked:,} of the pool's {of:,} samples are rated, spread evenly by {self.by}{added}; "
            f"{of - asked:,} are not"
        )

    def facts(self) -> dict[str, object]:
        """The draw for the manifest; all shards of a rater have the same."""
        parts = {name: {"asked": drawn, "of": size} for name, (drawn, size) in self.sources.items()}
        facts = {"asked": int(self.mask.sum()), "of": len(self.mask), "by": self.by, "sources": parts}
        return facts if self.also is None else facts | {"also": asdict(self.also)}


def draw(settings: AskedRater, pool: Artifact, embeddings: Artifact | None = None) -> Drawn | None:
    """The part of `pool` that `settings.sample` and `settings.also` select; None if that is all of it.

    All samples of a pool have one order, and the part is its beginning, so a larger part contains every smaller one. In
    a source of n samples, the sample with rank r, from 0, has the place r / n. A share s of the pool is every sample
    whose place is below s: ceil(s n) of each source, and at least one. A number takes that many samples in the order;
    of equal places, those of the largest source come first. Each source thus gives the same share, rounded up, such
    that the total is the number (Adams' apportionment). Ranks follow a hash of the seed and the id or, with
    `embeddings`, `spreading.spread_order`.

    Raises:
        InputError: when `embeddings` lack a sample of the pool, or none of the samples in `settings.also` is in it.
        SettingsError: when a file in `settings.also` is of an unknown kind.
        StorageError: when one cannot be read.
    """
    if settings.sample is None:
        return None
    keys, codes, names = _read(pool)
    sizes = np.bincount(codes, minlength=len(names))
    hashes = tie_breaks(keys, settings.sample_seed, _SALT)
    ranks = _ranks(codes, hashes, sizes) if embeddings is None else spread_order(keys, codes, hashes, embeddings)
    places = ranks / sizes[codes]
    mask = places < settings.sample
    if settings.sample >= 1:
        mask[:] = False
        mask[np.lexsort((codes, places))[: int(settings.sample)]] = True
    also = _add(settings.also, keys, mask) if settings.also else None
    drawn = np.bincount(codes[mask], minlength=len(names))
    sources = {name: (int(drawn[code]), int(sizes[code])) for code, name in enumerate(names)}
    return Drawn(mask, sources, "source" if embeddings is None else "source and embedding", also)


def _add(files: Sequence[str], keys: Keys, mask: NDArray[np.bool_]) -> Also:
    """Set `mask` (n,) for those of the samples `keys` (n,) that are in the files.

    Raises:
        InputError: when the files have ids, but none of these samples.
    """
    named = np.unique(np.concatenate([read_ids(file, setting="also") for file in files]))
    places = positions(named, keys)
    found = places[places >= 0]
    if len(named) and not len(found):
        raise InputError(
            f"also: none of the {len(named):,} ids in {', '.join(files)} is in the pool",
            allowed="ids from the pool's column `id`",
            action="use files that `tamis rating next` wrote for this pool, or leave out `also`",
        )
    drawn = int(mask.sum())
    mask[found] = True
    digest = hashlib.blake2b(named.tobytes(), digest_size=8).hexdigest()
    return Also(len(named), len(named) - len(found), int(mask.sum()) - drawn, digest)


def _ranks(codes: NDArray[np.int64], hashes: NDArray[np.uint64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rank of each sample in its source by its hash, (n,) from 0."""
    order = np.lexsort((hashes, codes))
    ranks = np.empty(len(codes), np.int64)
    ranks[order] = np.arange(len(codes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return ranks


def _read(pool: Artifact) -> tuple[Keys, NDArray[np.int64], list[str]]:
    """The key of each sample and the number of its source, both (n,), and the sources' names, largest first."""
    keys, codes, numbers = [np.empty(0, "S16")], [np.empty(0, np.int64)], dict[str, int]()
    for block in pool.batches(["id", "source"], rows=_ROWS):
        keys.append(pack(block["id"], where="the pool"))
        source: pa.DictionaryArray = block["source"].dictionary_encode()
        known = [numbers.setdefault(name, len(numbers)) for name in source.dictionary.to_pylist()]
        codes.append(np.array(known, np.int64)[source.indices.to_numpy()])
    found, names = np.concatenate(codes), list(numbers)
    sizes = np.bincount(found, minlength=len(names))
    order = sorted(range(len(names)), key=lambda number: (-sizes[number], names[number]))
    places = np.empty(len(names), np.int64)
    places[order] = np.arange(len(names))
    return np.concatenate(keys), places[found], [names[number] for number in order]
