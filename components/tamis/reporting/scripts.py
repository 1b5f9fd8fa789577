"""The script in which a text is written, used in place of its language if that is unknown."""

from __future__ import annotations

from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_LOOKED_AT = 1_000  # characters of each message
_KANA_SHARE = 0.1  # a text with a larger share of kana among kana and Han is Japanese
NO_LETTERS, LATIN, HAN, JAPANESE = "(no letters)", "Latin", "Han", "Japanese"
# First and last code points of letters, from the blocks of Unicode 15. Other characters do not count as letters.
_BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    LATIN: (
        (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x24F), (0x1E00, 0x1EFF),
        (0xFF21, 0xFF3A), (0xFF41, 0xFF5A),
    ),
    HAN: ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF)),
    JAPANESE: ((0x3041, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9D)),
    "Greek": ((0x370, 0x3FF), (0x1F00, 0x1FFF)),
    "Cyrillic": ((0x400, 0x52F), (0x1C80, 0x1C8F), (0x2DE0, 0x2DFF), (0xA640, 0xA69F)),
    "Armenian": ((0x531, 0x58F),),
    "Hebrew": ((0x591, 0x5F4), (0xFB1D, 0xFB4F)),
    "Arabic": ((0x620, 0x65F), (0x66E, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8FF), (0xFB50, 0xFDFF), (0xFE70, 0xFEFC)),
    "Devanagari": ((0x900, 0x963), (0x970, 0x97F), (0xA8E0, 0xA8FF)),
    "Bengali": ((0x980, 0x9FF),),
    "Gurmukhi": ((0xA00, 0xA7F),),
    "Gujarati": ((0xA80, 0xAFF),),
    "Odia": ((0xB00, 0xB7F),),
    "Tamil": ((0xB80, 0xBFF),),
    "Telugu": ((0xC00, 0xC7F),),
    "Kannada": ((0xC80, 0xCFF),),
    "Malayalam": ((0xD00, 0xD7F),),
    "Sinhala": ((0xD80, 0xDFF),),
    "Thai": ((0xE01, 0xE4E),),
    "Lao": ((0xE80, 0xEFF),),
    "Tibetan": ((0xF00, 0xFFF),),
    "Myanmar": ((0x1000, 0x109F),),
    "Georgian": ((0x10A0, 0x10FF), (0x1C90, 0x1CBF)),
    "Ethiopic": ((0x1200, 0x139F), (0x2D80, 0x2DDF)),
    "Khmer": ((0x1780, 0x17FF),),
    "Mongolian": ((0x1800, 0x18AF),),
    "Hangul": ((0x1100, 0x11FF), (0x3131, 0x318E), (0xAC00, 0xD7A3)),
}  # fmt: skip
SCRIPTS = (NO_LETTERS, *_BLOCKS)


@cache
def _script_of() -> NDArray[np.uint8]:
    table = np.zeros(0x110000, np.uint8)
    for code, name in enumerate(SCRIPTS[1:], 1):
        for first, last in _BLOCKS[name]:
            table[first : last + 1] = code
    return table


def dominant_scripts(contents: pa.Array, owner: NDArray[np.integer]) -> NDArray[np.uint8]:
    """The script of most letters of each sample, as a place in `SCRIPTS`.

    Args:
        contents: the texts of all messages; the first 1,000 characters of each are used.
        owner: the sample of each message, 0..; every sample has at least one message.
    """
    samples = int(owner[-1]) + 1 if len(owner) else 0
    found = np.full(samples, SCRIPTS.index(LATIN), np.uint8)  # texts in ASCII have no other script
    plain = pc.fill_null(pc.string_is_ascii(contents), True).to_numpy(zero_copy_only=False)
    other = np.unique(owner[~plain])
    if not len(other):
        return found
    place = np.full(samples, -1, np.int64)
    place[other] = np.arange(len(other))
    looked_at = place[owner] >= 0
    texts = pc.fill_null(pc.utf8_slice_codeunits(contents.filter(pa.array(looked_at)), 0, _LOOKED_AT), "")
    lengths = pc.utf8_length(texts).to_numpy(zero_copy_only=False)
    codes = np.frombuffer("".join(texts.to_pylist()).encode("utf-32-le"), np.uint32)
    rows = np.repeat(place[owner[looked_at]], lengths)
    cells = rows * len(SCRIPTS) + _script_of()[codes]
    counts = np.bincount(cells, minlength=len(other) * len(SCRIPTS)).reshape(len(other), len(SCRIPTS))
    counts[:, SCRIPTS.index(NO_LETTERS)] = 0  # so that it is the largest only if all others are 0
    han, kana = SCRIPTS.index(HAN), SCRIPTS.index(JAPANESE)
    japanese = counts[:, kana] > _KANA_SHARE * (counts[:, kana] + counts[:, han])
    counts[japanese, kana] += counts[japanese, han]
    counts[japanese, han] = 0
    found[other] = counts.argmax(1)
    return found
