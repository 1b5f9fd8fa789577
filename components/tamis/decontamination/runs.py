"""Runs of words in evaluation data: which of them a sample shares, and how much of a text they cover."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import regex
from numpy.typing import NDArray

from tamis.core.errors import InputError

FEWEST = 8  # least number of words of a text that is compared
_KNOWN_WORDS = 1_000_000  # whose numbers are kept: some 150 MB
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Hashes = NDArray[np.uint64]
Numbers = NDArray[np.int64]

_NONE: Numbers = np.empty(0, np.int64)


# The signs that Hindi, Bengali or Telugu write vowels with are marks (M): the \w of `re` leaves them out.
_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{N}\p{Mn}\p{Mc}]*")
_UNSEEN = "\u00ad\u200c\u200d"  # inside words: the soft hyphen, and what parts and joins letters' shapes


def words_of(text: str) -> list[str]:
    """The words of a text, whatever their case, punctuation and form of characters."""
    for character in _UNSEEN:
        text = text.replace(character, "")
    words: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return words


class _Hashing:
    """Hashes of words, the same in every process."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def of(self, words: Sequence[str]) -> Hashes:
        known = self._known
        if len(known) > _KNOWN_WORDS:
            known.clear()
        for word in words:
            if word not in known:
                known[word] = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return np.array([known[word] for word in words], np.uint64)


def _windows(hashes: Hashes, longest: int) -> Iterator[tuple[int, Hashes]]:
    """For each length up to `longest`, the hashes of all runs of that length: polynomials of hashes modulo 2^64."""
    total: Hashes = np.zeros(len(hashes) + 1, np.uint64)
    for length in range(1, min(longest, len(hashes)) + 1):
        total = total[:-1] * _FACTOR + hashes[length - 1 :]
        yield length, total


class Texts:
    """The texts of evaluation data, each stored once, with their places.

    Args:
        words: length of a run. A text that is shorter, but has `FEWEST` words or more, is one run.
        common: largest number of records or texts that share a question.

    Attributes:
        texts: T texts.
        places: for each text, the first record with it, by file.
        runs: for each text, the hashes of its runs, in order.
        lengths: for each text, the number of words of each run.
        instructions: texts that are in more than `common` records and more than a tenth of the records, in every file
            that contains them.
    """

    def __init__(self, words: int, common: int) -> None:
        self.words, self.common, self.hashing = words, common, _Hashing()
        self.texts: list[str] = []
        self.places: list[dict[str, int]] = []
        self.runs: list[Hashes] = []
        self.lengths: list[int] = []
        self.instructions: set[int] = set()
        self._questions: set[int] = set()
        self._numbers: dict[bytes, int] = {}

    def add(self, file: str, records: Iterable[Iterable[str]]) -> int:
        """Add the texts of each record of a file, and return the number of records.

        Raises:
            InputError: when no text has `FEWEST` words.
        """
        holding: Counter[int] = Counter()
        record = 0
        for record, texts in enumerate(records, 1):
            split = ((text, words_of(text)) for text in texts)
            known = {self._number(text, words) for text, words in split if len(words) >= FEWEST}
            for number in known:
                self.places[number].setdefault(file, record)
            holding.update(known)
        if not holding:
            raise InputError(f"{file} has no text of {FEWEST} words or more", action="give a file with evaluation data")
        often = {text for text, n in holding.items() if n > max(self.common, record // 10)}
        self._questions |= holding.keys() - often
        self.instructions = (self.instructions | often) - self._questions
        return record

    def _number(self, text: str, words: list[str]) -> int:
        hashes = self.hashing.of(words)
        number = self._numbers.setdefault(hashlib.blake2b(hashes.tobytes(), digest_size=16).digest(), len(self.texts))
        if number == len(self.texts):
            *_, (length, runs) = _windows(hashes, self.words)
            self.texts.append(text)
            self.places.append({})
            self.runs.append(runs)
            self.lengths.append(length)
        return number


class Runs:
    """The R runs of words in evaluation data, numbered from 0, and their W places in its concatenated texts.

    A text's own words are those outside instructions. A run belongs to an instruction if more than `common` different
    texts contain it, or an instruction of `Texts` does.
    """

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        lengths = np.array(texts.lengths, np.int64)
        places = np.array([len(runs) for runs in texts.runs], np.int64)
        ends = np.cumsum(places + lengths - 1)
        self._begins = ends - places - lengths + 1
        # For each place: its text, length in words, first word, run.
        self._text = np.repeat(np.arange(len(places)), places)
        self._length = lengths[self._text]
        self._start = np.arange(len(self._text)) + (self._begins - np.cumsum(places) + places)[self._text]
        self._sorted: dict[int, tuple[int, Hashes]] = {}
        self._run = self._number(np.concatenate(texts.runs))
        self._by_run = np.argsort(self._run, kind="stable")
        self._first = np.concatenate([[0], np.cumsum(np.bincount(self._run))])
        self._instruction = self._instructions()
        self._own = self._own_words_before(int(ends[-1]))
        self._own_words = self._own[ends] - self._own[self._begins]

    def __len__(self) -> int:
        return len(self._first) - 1

    def _number(self, hashes: Hashes) -> Numbers:
        numbers, known = np.empty(len(hashes), np.int64), 0
        for length in np.unique(self._length).tolist():
            of_length = self._length == length
            runs, inverse = np.unique(hashes[of_length], return_inverse=True)
            self._sorted[length] = known, runs
            numbers[of_length] = known + inverse
            known += len(runs)
        return numbers

    def _instructions(self) -> NDArray[np.bool_]:
        texts = len(self._texts.texts)
        run_and_text = np.unique(self._run * texts + self._text)
        instruction: NDArray[np.bool_] = np.bincount(run_and_text // texts) > self._texts.common
        instruction[self._run[np.isin(self._text, list(self._texts.instructions))]] = True
        return instruction

    def _own_words_before(self, words: int) -> Numbers:
        """The number of own words before each word of all texts, and in total."""
        change = np.zeros(words + 1, np.int64)
        places = self._instruction[self._run]
        np.add.at(change, self._start[places], 1)
        np.add.at(change, (self._start + self._length)[places], -1)
        return np.concatenate([[0], np.cumsum(np.cumsum(change[:-1]) == 0)])

    def shared(self, texts: Iterable[str]) -> Numbers:
        """The runs in the texts of a sample, ascending."""
        found = [runs for text in texts for runs in self._in_text(text) if len(runs)]
        return np.unique(np.concatenate(found)) if found else _NONE

    def _in_text(self, text: str) -> Iterator[Numbers]:
        for length, windows in _windows(self._texts.hashing.of(words_of(text)), self._texts.words):
            if length in self._sorted:
                first, runs = self._sorted[length]
                nearest = np.minimum(np.searchsorted(runs, windows), len(runs) - 1)
                yield first + nearest[runs[nearest] == windows]

    def places(self, runs: Numbers) -> Numbers:
        """The places of `runs`, ascending."""
        if not len(runs):
            return _NONE
        return np.sort(np.concatenate([self._by_run[self._first[run] : self._first[run + 1]] for run in runs.tolist()]))

    def places_in_covered(self, runs: Numbers) -> Numbers:
        """The places of `runs` in texts of which they cover at least half of the own words, ascending."""
        places = self.places(runs[~self._instruction[runs]])
        if not len(places):
            return _NONE
        start = self._start[places]
        end = start + self._length[places]
        end[:-1] = np.minimum(end[:-1], start[1:])  # so that no word is counted twice
        texts, text = np.unique(self._text[places], return_inverse=True)
        covered = np.bincount(text, self._own[end] - self._own[start])
        own = self._own_words[texts]
        enough: NDArray[np.bool_] = (own >= FEWEST) & (2 * covered >= own)
        return places[enough[text]]

    def records(self, places: Numbers) -> dict[str, tuple[int, str]]:
        """For each file with a text at `places`: the record and the words of the first one."""
        found: dict[str, tuple[int, str]] = {}
        for place in places.tolist():
            for file, record in self._texts.places[self._text[place]].items():
                if file not in found:
                    found[file] = record, self._words_at(place)
        return found

    def words(self, run: int) -> str:
        """The words of a run."""
        return self._words_at(int(self._by_run[self._first[run]]))

    def _words_at(self, place: int) -> str:
        text = self._text[place]
        start = self._start[place] - self._begins[text]
        return " ".join(words_of(self._texts.texts[text])[start : start + self._length[place]])
