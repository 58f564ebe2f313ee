"""Work shared out to threads."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from loopanimate_training.storage.threads import ordered_map


@given(st.integers(0, 30), st.integers(1, 4), st.integers(1, 9))
def test_ordered_map_is_map(count: int, threads: int, ahead: int) -> None:
    taken = 0

    def items() -> Any:
        nonlocal taken
        for number in range(count):
            taken += 1
            yield number

    for number, result in enumerate(ordered_map(lambda x: x * x, items(), threads, ahead)):
        assert result == number * number and taken <= number + ahead
