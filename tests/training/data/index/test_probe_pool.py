"""Probing in child processes: a bad file costs a clip and not the run."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from loopanimate_training.data.index.probe import (
    ProbeResult,
    probe,
    unusable,
)
from loopanimate_training.data.index.probe_pool import CRASHES, TOO_SLOW, ProbePool
from loopanimate_training.data.readers.rows import Blob, Row

Films = Any  # the fixture of conftest.py


def test_poison_costs_a_clip_and_not_the_run(folder: Path) -> None:
    """A file that is never read to its end, and a decoder that dies: here a pipe, and a kill."""
    pipe = folder / "poison.mp4"
    os.mkfifo(pipe)
    good, poison = Row("0", Blob(folder / "0.mp4")), Row("p", Blob(pipe))
    with ProbePool(1, time_limit_s=0.5) as pool:
        assert pool.probe(poison).reason == TOO_SLOW
    with ProbePool(1) as pool:
        answers: list[ProbeResult] = []
        thread = threading.Thread(target=lambda: answers.append(pool.probe(poison)))
        thread.start()
        while not pool._children:
            time.sleep(0.01)
        next(iter(pool._children)).kill()
        thread.join()
        assert answers == [unusable(CRASHES)]
        assert pool.probe(good) == probe(good)
