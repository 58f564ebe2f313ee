"""Near-duplicates: clips whose first and turning frames have almost the same perceptual hashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

BITS = 128
_BAND_BITS = (
    16  # 8 bands: hashes that differ in at most 7 bits have one band in common (pigeonhole)
)


def earlier_twins(hashes: Sequence[int], most_bits: int) -> list[int | None]:
    """For each hash of 128 bits, the number of the earliest kept one that differs in at most `most_bits`; None for
    those that are kept. `most_bits` is -1 (keep all) to 7.

    Clips that share a band are compared one by one: in a set of millions of nearly black clips that is slow.
    """
    twins: list[int | None] = []
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, value in enumerate(hashes):
        bands = [(at, (value >> at) & ((1 << _BAND_BITS) - 1)) for at in range(0, BITS, _BAND_BITS)]
        near = {other for band in bands for other in buckets[band]} if most_bits >= 0 else set()
        close = [other for other in near if (hashes[other] ^ value).bit_count() <= most_bits]
        twins.append(min(close, default=None))
        if twins[-1] is None:
            for band in bands:
                buckets[band].append(number)
    return twins
