"""Work shared out to threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], threads: int, ahead: int
) -> Generator[R, None, None]:
    """`map` in threads, in order. At most `ahead` items are started before their turn, so that `items` may
    be millions."""
    with ThreadPoolExecutor(threads) as pool:
        started: deque[Future[R]] = deque()
        try:
            for item in items:
                started.append(pool.submit(function, item))
                if len(started) >= ahead:
                    yield started.popleft().result()
            while started:
                yield started.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
