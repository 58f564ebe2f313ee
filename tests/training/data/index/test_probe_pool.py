"""Probing in child processes: a bad file loses one clip and does not stop the run."""

from __future__ import annotations

import signal
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


def test_a_file_that_hangs_or_kills_the_decoder_loses_one_clip(folder: Path) -> None:
    """A stopped child stands for a file that never ends, a killed one for a decoder that crashes."""
    row = Row("0", Blob(folder / "0.mp4"))
    with ProbePool(1, time_limit_s=0.5) as pool:
        assert probe_with_signal(pool, row, signal.SIGSTOP) == unusable(TOO_SLOW)
    with ProbePool(1) as pool:
        assert probe_with_signal(pool, row, signal.SIGKILL) == unusable(CRASHES)
        assert pool.probe(row) == probe(row)


def probe_with_signal(pool: ProbePool, row: Row, number: signal.Signals) -> ProbeResult:
    """Probe a clip in a child that gets a signal as soon as it exists, long before it can answer."""
    answers: list[ProbeResult] = []
    thread = threading.Thread(target=lambda: answers.append(pool.probe(row)))
    thread.start()
    while not pool._children:
        time.sleep(0.001)
    next(iter(pool._children)).send_signal(number)
    thread.join()
    (answer,) = answers
    return answer
