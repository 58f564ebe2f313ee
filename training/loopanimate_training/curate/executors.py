"""Where clips are measured: in child processes of this machine, or in tasks of a Ray cluster that do the same."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

from loopanimate_core.errors import LoopAnimateError

from ..config import CurateConfig
from ..data.readers.requests import from_request, to_request
from ..data.readers.rows import Row
from ..storage.threads import ordered_map
from .outcome import Outcome
from .worker import WorkerPool

Executor = Literal["local", "ray"]
PART_CLIPS = 32  # of a Ray task, at most
_PARTS_PER_WORKER = (
    4  # at least: a kill or a slow clip at the end costs little, and every worker gets some
)
_AHEAD = 8  # clips or tasks per worker that are started before their turn


def measured(
    rows: Sequence[Row], config: CurateConfig, workers: int, executor: Executor
) -> Iterator[Outcome]:
    """The outcome of every row, in order.

    Raises:
        LoopAnimateError: the network or the CLIP model cannot be used, or Ray is not installed or does not start.
    """
    if executor == "ray":
        yield from _on_ray(rows, config, workers)
        return
    with WorkerPool(config, workers) as pool:
        yield from ordered_map(pool.measure, rows, workers, _AHEAD * workers)


def _on_ray(rows: Sequence[Row], config: CurateConfig, workers: int) -> Iterator[Outcome]:
    """Tasks of a few clips. Every process of Ray has a child, so a clip that kills it costs neither task nor part."""
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise LoopAnimateError(
            "--executor ray needs Ray, which is not installed: python -m pip install 'ray'"
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False)
        except Exception as error:  # plain ones, for example where the machine is too busy
            raise LoopAnimateError(f"Ray does not start: {error}") from error
    task = ray.remote(num_cpus=1, max_retries=2)(_measure_part)
    settings = config.model_dump_json()
    size = max(1, min(PART_CLIPS, len(rows) // (_PARTS_PER_WORKER * workers)))
    parts = ([to_request(row) for row in rows[at : at + size]] for at in range(0, len(rows), size))
    waiting = [task.remote(settings, part) for part in islice(parts, _AHEAD * workers)]
    while waiting:
        values = ray.get(waiting.pop(0))
        waiting += [task.remote(settings, part) for part in islice(parts, 1)]
        yield from map(Outcome.from_values, values)


def _measure_part(settings: str, part: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a Ray task does."""
    pool = _child(settings)
    return [pool.measure(from_request(request)).to_values() for request in part]


@lru_cache(maxsize=1)
def _child(settings: str) -> WorkerPool:
    """A child that the tasks of one process share: to start it takes as long as to measure several clips. It ends with
    its process."""
    return WorkerPool(CurateConfig.model_validate_json(settings), 1)
