"""Frames are measured one by one: the result is that of the whole clip, and the memory that of a few frames."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from loopanimate_core.check import check_loop, measures, meter
from loopanimate_core.check.meter import FrameMeter
from loopanimate_core.errors import LoopAnimateError


def drifting(count: int, size_px: int = 16) -> list[torch.Tensor]:
    """A bright spot that goes once around; the last frame is followed by the first."""
    y, x = torch.meshgrid(torch.arange(size_px), torch.arange(size_px), indexing="ij")
    frames = []
    for index in range(count):
        angle = torch.tensor(2 * torch.pi * index / count)
        centre_y, centre_x = (size_px / 2 + size_px / 4 * f(angle) for f in (torch.sin, torch.cos))
        spot = torch.exp(-((y - centre_y) ** 2 + (x - centre_x) ** 2) / 8)
        frames.append(spot[..., None].expand(-1, -1, 3).contiguous())
    return frames


def test_measurements_are_those_of_the_whole_clip() -> None:
    frames = torch.stack(drifting(12))
    one_by_one = FrameMeter()
    for frame in frames:
        one_by_one.add(frame)
    found = one_by_one.finish()
    assert torch.equal(found.steps, measures.step_sizes(frames))
    assert torch.equal(found.coarse, measures.shrink(frames, measures.COARSE_PX))
    torch.testing.assert_close(found.colours, measures.mean_colours(found.coarse))
    furthest = max(float(measures.distance(frame, frames[0])) for frame in frames)
    assert found.max_distance == pytest.approx(furthest)


def test_only_a_few_frames_are_held_at_a_time() -> None:
    one_by_one, frames = FrameMeter(), drifting(40)
    alive = [weakref.ref(frame) for frame in frames]
    while frames:
        one_by_one.add(frames.pop(0))
    gc.collect()
    assert sum(reference() is not None for reference in alive) <= 2  # the first and the last


def test_a_long_clip_keeps_what_is_around_its_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter, "MAX_COARSE", 40)
    frames = drifting(300)
    one_by_one = FrameMeter()
    for frame in frames:
        one_by_one.add(frame)
    found = one_by_one.finish()
    assert found.frames == len(found.steps) == len(found.colours) == 300 and len(found.coarse) == 40
    assert torch.equal(found.coarse[0], measures.shrink(frames[0][None], 64)[0])
    assert torch.equal(found.coarse[-1], measures.shrink(frames[-1][None], 64)[0])
    assert found.ssim == pytest.approx(measures.ssim_adjacent(torch.stack(frames[:40])))


def test_the_distance_of_whole_numbers_is_that_of_floats() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, 256, (2, 150, 40, 3), dtype=torch.uint8, generator=generator)
    floats = measures.distance(measures.as_float(first), measures.as_float(second))
    assert float(measures.distance(first, second)) == pytest.approx(float(floats), rel=1e-5)


def test_the_seam_of_a_long_clip_decides() -> None:
    count = meter.MAX_COARSE + 120
    closed = check_loop(torch.stack(drifting(count)))
    assert closed.frames == closed.period_frames == count
    assert "jump" not in closed.reasons
    cut = check_loop(torch.stack(drifting(2 * count)[:count]))  # half a turn
    assert "jump" in cut.reasons


def test_a_frame_that_is_not_finite_is_refused() -> None:
    with pytest.raises(LoopAnimateError, match="NaN"):
        FrameMeter().add(torch.full((16, 16, 3), float("nan")))
