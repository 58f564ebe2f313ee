"""Measuring clips in child processes with a time limit and a memory limit. Run as a program, this module is the child."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any

from loopanimate_core.errors import LoopAnimateError

from ..config import CurateConfig, MeasureConfig
from ..data.readers.requests import from_request, to_request
from ..data.readers.rows import Row
from ..storage.children import ChildPool, requests
from .outcome import FAILED, QUARANTINED, Outcome

CRASHES, TOO_SLOW, TOO_LARGE = "kills its worker", "takes too long", "needs too much memory"
UNREADABLE, SURPRISE = "cannot be decoded", "cannot be measured"
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # workers run in parallel


class WorkerPool(ChildPool):
    """Child processes that measure clips. Use as a context; both methods may be called from several threads."""

    def __init__(self, config: CurateConfig, workers: int) -> None:
        settings = {
            "measure": config.measure.model_dump(mode="json"),
            "memory_limit_mb": config.workers.memory_limit_mb,
        }
        self._limits = config.workers
        super().__init__(
            __name__, workers, config.workers.time_limit_s, [json.dumps(settings)], _ONE_THREAD
        )

    def measure(self, row: Row) -> Outcome:
        """Measure a clip.

        A child works on one clip at a time, so it is known which one killed it. That clip gets a second chance in
        a fresh child, in case those before it had done the damage, and is quarantined if it kills that one too.

        Raises:
            LoopAnimateError: the network or the CLIP model cannot be used.
        """
        request = {"task": "measure", **to_request(row)}
        for _ in range(2):
            answer = self.ask(request)
            if answer.line:
                return _outcome(json.loads(answer.line))
            if answer.timed_out:
                limit_s = self._limits.time_limit_s
                return Outcome(None, QUARANTINED, TOO_SLOW, f"not done after {limit_s:g} s")
        return Outcome(None, QUARANTINED, CRASHES, "two workers died while they measured it")

    def picture(self, row: Row) -> bytes:
        """A JPEG of a clip's first and turning frame with the object marked; empty if there is none."""
        answer = self.ask({"task": "picture", **to_request(row)})
        values = json.loads(answer.line) if answer.line else {}
        return base64.b64decode(values.get("picture", ""))


def _outcome(values: Mapping[str, Any]) -> Outcome:
    if "error" in values:
        raise LoopAnimateError(values["error"])
    return Outcome.from_values(values)


def main() -> None:
    """The child: one answer per request, until the parent closes the pipe."""
    settings = json.loads(sys.argv[1])
    limit_memory(settings["memory_limit_mb"])
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    measured = MeasureConfig.model_validate(settings["measure"])
    for request in requests():
        print(json.dumps(_answer(request, measured)), flush=True)


def limit_memory(megabytes: int | None) -> None:
    """Limit the memory that this process may allocate, on Linux; shared libraries do not count."""
    if megabytes is None or sys.platform != "linux":
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = megabytes << 20
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _answer(request: Mapping[str, Any], settings: MeasureConfig) -> dict[str, Any]:
    import cv2

    from ..data.video.bad_clip import BadClip
    from .measure import measure

    row = from_request(request)
    try:
        if request["task"] == "picture":
            return {"picture": _picture(row, settings)}
        return Outcome(measure(row, settings)).to_values()
    except BadClip as error:
        return Outcome(None, FAILED, UNREADABLE, str(error)).to_values()
    except LoopAnimateError as error:
        return {"error": str(error)}
    except MemoryError:
        return Outcome(None, QUARANTINED, TOO_LARGE, "workers.memory_limit_mb").to_values()
    except cv2.error as error:
        if "Insufficient memory" in str(error):
            return Outcome(None, QUARANTINED, TOO_LARGE, "workers.memory_limit_mb").to_values()
        return Outcome(None, FAILED, SURPRISE, str(error)).to_values()
    except Exception as error:  # whatever else a strange file causes costs that clip alone
        detail = f"{type(error).__name__}: {error}"
        return Outcome(None, FAILED, SURPRISE, detail).to_values()


def _picture(row: Row, settings: MeasureConfig) -> str:
    from .measure import look_at
    from .thumbnail import draw

    seen = look_at(row, settings)
    return base64.b64encode(draw(seen.frames, seen.masks)).decode("ascii")


if __name__ == "__main__":
    main()
