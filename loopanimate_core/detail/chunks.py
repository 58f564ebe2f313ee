"""Work on the frames of a loop in chunks that stay in a processor's cache, several at a time.

The chunks do not depend on the number of threads, and so neither do the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

CHUNK_PX = 40_000  # pixels of all frames of a chunk: 1 MB for six planes
T = TypeVar("T")
_pool: ContextVar[ThreadPoolExecutor | None] = ContextVar("_pool", default=None)


@contextmanager
def parallel_frames(threads: int) -> Iterator[None]:
    """`over_frames` uses so many threads while the block runs; within each, torch computes with one.

    The operations are too small for torch's own threads, which would wait for each other.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with ThreadPoolExecutor(
        max(1, threads), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        token = _pool.set(pool if threads > 1 else None)
        try:
            yield
        finally:
            _pool.reset(token)
            torch.set_num_threads(before)


def over_frames(work: Callable[[slice], T], frames: int, frame_px: int) -> list[T]:
    """What `work` makes of each chunk of `frames` frames with `frame_px` pixels each, in their order."""
    size = max(1, CHUNK_PX // frame_px)
    parts = [slice(start, min(start + size, frames)) for start in range(0, frames, size)]
    pool = _pool.get()
    return list(map(work, parts) if pool is None or len(parts) == 1 else pool.map(work, parts))
