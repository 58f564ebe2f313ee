"""Memory is estimated before work: what cannot fit is one sentence, what fits is not refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from toy_bundle import build_toy_bundle

from loopanimate_core import memory
from loopanimate_core.budget import decoding_bytes, require_loop_memory, sampling_bytes
from loopanimate_core.bundle import bundle_info, mini_bundle_path
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.settings import resolve_settings


def test_a_loop_that_cannot_fit_is_refused_before_it_is_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**7)
    monkeypatch.setattr(
        "loopanimate_core.pipeline.fit_picture", lambda *_: pytest.fail("work began")
    )
    pipeline = LoopAnimatePipeline(build_toy_bundle())
    with pytest.raises(LoopAnimateError, match=r"needs about .* GB of memory"):
        pipeline(torch.rand(64, 64, 3), "x", frames=15, height_px=1024, width_px=1024, seed=0)


def test_estimates_grow_with_what_is_drawn() -> None:
    config = bundle_info(mini_bundle_path()).config

    def estimates(**chosen: Any) -> tuple[int, int]:
        settings = resolve_settings(config, seed=0, frames=15, **chosen)
        return sampling_bytes(config, settings), decoding_bytes(config, settings)

    small, large = estimates(height_px=512, width_px=512), estimates(height_px=4096, width_px=4096)
    assert all(b > 50 * a for a, b in zip(small, large, strict=True))
    assert max(small) < 2e9  # the bundled model draws this on any computer
    assert max(large) > 2e10  # and this is killed on most


def test_the_usual_loop_is_never_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 5 * 10**8)
    config = bundle_info(mini_bundle_path()).config
    require_loop_memory(config, resolve_settings(config, seed=0))


def test_limits_of_the_machine_are_read() -> None:
    available = memory.available_bytes()
    if Path("/proc/meminfo").exists():
        assert available is not None and available > 0
    memory.require_memory(1, "nothing", "nothing")
    if available is not None:
        with pytest.raises(LoopAnimateError, match="are free; choose less"):
            memory.require_memory(10 * available, "a test", "choose less")
