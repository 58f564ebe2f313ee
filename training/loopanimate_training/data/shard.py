"""Shares of a data set for several machines: `--shard 2/8`."""

from __future__ import annotations

from dataclasses import dataclass

from loopanimate_core.errors import LoopAnimateError


@dataclass(frozen=True)
class Shard:
    """Share `number` (from 0) of `count` of the clips."""

    number: int = 0
    count: int = 1

    @staticmethod
    def parse(text: str) -> Shard:
        """The second of eight shares for `2/8`.

        Raises:
            LoopAnimateError: the text has another form, or is out of range.
        """
        number, slash, count = text.partition("/")
        if not (slash and number.isdecimal() and count.isdecimal()):
            raise LoopAnimateError(f"--shard must look like 2/8, got {text!r}")
        if not 1 <= int(number) <= int(count):
            raise LoopAnimateError(f"--shard {text}: the first number must be 1 to {count}")
        return Shard(int(number) - 1, int(count))

    def split(self, number: int, count: int) -> Shard:
        """Part `number` of `count` of this share."""
        return Shard(self.number * count + number, self.count * count)

    def of(self, total: int) -> range:
        """The clip numbers of this share, of `total` clips."""
        return range(self.number, total, self.count)
