"""Rows that say the same as an earlier one: exactly, or nearly, by MinHash.

Two rows are near-duplicates where the prompts, and the chosen answers, and the rejected ones, each have a Jaccard
similarity of the threshold or more over their shingles, SHINGLE tokens in a row. Candidates are found by MinHash
signatures of all shingles in bands (Broder 1997; Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, section
3.4), then compared exactly, so that none is dropped by chance. Signatures lie in a file, and each band is sorted by
itself: datasketch's own index keeps everything in memory.
"""

import zlib
from array import array
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from feedback.curation.rows import Row, Rows
from feedback.curation.words import tokens

if TYPE_CHECKING:
    import numpy as np
    from datasketch import MinHash
    from numpy.typing import NDArray

SHINGLE = 3
# Odd and unlike, so that the order of a shingle's tokens counts.
FACTORS, MARK = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D), 0x27D4EB2F
PERMUTATIONS = 128
SEED = 1
# Bands are made so narrow that fewer than this share of the pairs at the threshold are missed.
MISSED = 1e-4
# In a band's bucket each row is compared with the first one and with so many before it, so that rows that share most
# of their text (a long system prompt) cost no more than others.
NEIGHBOURS = 10
CHUNK = 50_000
# At most so many signatures are looked at at a time: a page of a file each.
LOOKED_AT = 4_000

EXACT, NEAR = "exact duplicate", "near duplicate"
Shingles = tuple[set[tuple[str, ...]], ...]


def drop_exact(rows: Rows, kind: str) -> None:
    """Drop every row that differs from an earlier one in case and white space alone."""
    rows.db.execute(
        "UPDATE rows SET reason = ? WHERE kind = ? AND reason IS NULL AND number NOT IN "
        "(SELECT min(number) FROM rows WHERE kind = ? AND reason IS NULL GROUP BY identity)",
        (EXACT, kind, kind),
    )


def drop_near(rows: Rows, kind: str, threshold: float, path: Path) -> Iterator[int]:
    """Drop every row that is a near-duplicate of an earlier one that is kept; a 1 for each row that was looked at.

    Args:
        path: a new file for the signatures.
    """
    import numpy as np
    from datasketch import MinHash

    # The shingles come hashed already.
    sketch = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=int)
    numbers = array("q")
    with path.open("wb") as file:
        for row in rows.standing(kind):
            numbers.append(row.number)
            file.write(_signature(sketch, row))
            yield 1
    if not numbers:
        return
    place = np.frombuffer(numbers, dtype=np.int64)
    similar = lru_cache(maxsize=1024)(lambda number: _shingles(rows.row(number)))
    dropped = np.zeros(len(place), dtype=bool)
    for earlier, later in _candidates(path, len(place), threshold):
        if dropped[earlier] or dropped[later]:
            continue
        likeness = _similarity(similar(int(place[earlier])), similar(int(place[later])))
        if likeness >= threshold:
            dropped[later] = True
            begins = " ".join(rows.row(int(place[earlier])).turns[-1].split())[:100]
            rows.drop(int(place[later]), NEAR, f"{likeness:.2f} like the row whose question begins: {begins}")


def settings(threshold: float) -> dict[str, float]:
    """How near-duplicates of this threshold are found, for the card."""
    bands, width = bands_of(threshold)
    found = {"bands": bands, "width": width}
    return {"threshold": threshold, "shingle": SHINGLE, "seed": SEED, "permutations": PERMUTATIONS, **found}


def bands_of(threshold: float) -> tuple[int, int]:
    """How many bands, and of how many values: the widest ones that miss no more than MISSED at the threshold."""
    return next(
        (PERMUTATIONS // width, width)
        for width in range(PERMUTATIONS, 0, -1)
        if (1 - threshold**width) ** (PERMUTATIONS // width) <= MISSED or width == 1
    )


def _shingles(row: Row) -> Shingles:
    return tuple(_of_part(tokens(part)) for part in row.parts)


def _of_part(split: list[str]) -> set[tuple[str, ...]]:
    if len(split) <= SHINGLE:
        return {tuple(split)}
    return set(zip(*(split[offset:] for offset in range(SHINGLE)), strict=False))


def _similarity(one: Shingles, other: Shingles) -> float:
    """The Jaccard similarity of the parts that are least alike."""
    return min(len(a & b) / len(a | b) for a, b in zip(one, other, strict=True))


def _signature(sketch: "MinHash", row: Row) -> bytes:
    """MinHash of the shingles of all parts, each marked with its part: where every part is alike, so is the whole."""
    import numpy as np

    sketch.clear()
    sketch.update_batch(np.concatenate([_hashed(tokens(text), part) for part, text in enumerate(row.parts)]).tolist())
    return sketch.hashvalues.tobytes()


def _hashed(split: list[str], part: int) -> "NDArray[np.uint32]":
    """A number for each shingle, from the checksums of its tokens."""
    import numpy as np

    sums = np.fromiter(map(zlib.crc32, map(str.encode, split)), np.uint32, len(split))
    if len(sums) <= SHINGLE:
        return np.array([zlib.crc32(sums.tobytes(), part)], np.uint32)
    last = len(sums) - SHINGLE + 1
    hashed = np.full(last, part * MARK, np.uint32)
    for offset, factor in enumerate(FACTORS):
        hashed += sums[offset : offset + last] * np.uint32(factor)
    return hashed


def _candidates(path: Path, count: int, threshold: float) -> Iterator[tuple[int, int]]:
    """Places of rows whose signatures promise the threshold, (earlier, later), by the later one."""
    import numpy as np

    bands, width = bands_of(threshold)
    # Four standard errors of the estimate from so many permutations below the threshold.
    promising = threshold - 4 * (threshold * (1 - threshold) / PERMUTATIONS) ** 0.5
    found = np.empty(0, dtype=np.uint64)
    for band in range(bands):
        keys = _band_keys(path, count, band * width, width)
        for earlier, later in _neighbours(keys):
            for start in range(0, len(earlier), LOOKED_AT):
                a, b = earlier[start : start + LOOKED_AT], later[start : start + LOOKED_AT]
                # Mapped anew each time, so that the pages it brings in do not add up.
                signatures = np.memmap(path, np.uint32, "r", shape=(count, PERMUTATIONS))
                alike = (signatures[a] == signatures[b]).mean(axis=1) >= promising
                del signatures
                packed = b[alike].astype(np.uint64) << np.uint64(32) | a[alike].astype(np.uint64)
                found = np.union1d(found, packed)
    for packed in found.tolist():
        yield packed & 0xFFFFFFFF, packed >> 32


def _band_keys(path: Path, count: int, first: int, width: int) -> "NDArray[np.uint64]":
    """A number for each row, equal where the band's values are equal (and, by chance, in one of 2**64 others)."""
    import numpy as np

    keys = np.empty(count, dtype=np.uint64)
    odd = np.random.default_rng(SEED).integers(0, 2**63, size=width, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    with path.open("rb") as file:
        for start in range(0, count, CHUNK):
            signatures = np.fromfile(file, np.uint32, min(CHUNK, count - start) * PERMUTATIONS)
            values = signatures.reshape(-1, PERMUTATIONS)[:, first : first + width].astype(np.uint64)
            mixed = values * odd
            mixed ^= mixed >> np.uint64(29)
            keys[start : start + len(values)] = mixed.sum(axis=1, dtype=np.uint64)
    return keys


def _neighbours(keys: "NDArray[np.uint64]") -> Iterator[tuple["NDArray[np.int64]", "NDArray[np.int64]"]]:
    """Pairs of places with equal keys, the earlier and the later: each with those before it and with the first."""
    import numpy as np

    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    bucket = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    sizes = np.diff(np.append(bucket, len(keys)))
    crowded = np.repeat(sizes > NEIGHBOURS + 1, sizes)
    if crowded.any():
        first = order[np.repeat(bucket, sizes)]
        yield first[crowded & (first != order)], order[crowded & (first != order)]
    for distance in range(1, min(NEIGHBOURS + 1, len(keys))):
        same = ordered[distance:] == ordered[:-distance]
        if not same.any():
            return
        yield order[:-distance][same], order[distance:][same]
