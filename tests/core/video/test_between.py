"""Interpolation round the ring."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video.between import interpolate_loop

pytestmark = pytest.mark.numeric


def turning_disc(frames: int) -> torch.Tensor:
    """A disc that goes round once, `[frames, 48, 64, 3]`."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    drawn = []
    for index in range(frames):
        angle = 2 * math.pi * index / frames
        distance = (x - 32 - 14 * math.cos(angle)).hypot(y - 24 - 12 * math.sin(angle))
        drawn.append(0.3 + (9 - distance).clamp(0, 1)[..., None] * torch.tensor([0.6, 0.3, -0.1]))
    return torch.stack(drawn)


@pytest.fixture(scope="module")
def found() -> torch.Tensor:
    return interpolate_loop(turning_disc(16), 3)


@pytest.mark.parametrize("method", ["motion", "blend"])
@pytest.mark.parametrize("times", [2, 3])
def test_the_frames_that_were_there_stay(method: str, times: int) -> None:
    frames = turning_disc(6)
    found = interpolate_loop(frames, times, method)
    assert found.shape == (6 * times, 48, 64, 3) and found[::times].equal(frames)
    assert found.min() >= 0 and found.max() <= 1


def test_motion_is_followed_across_the_seam_too(found: torch.Tensor) -> None:
    truth = turning_disc(48)
    faded = interpolate_loop(turning_disc(16), 3, "blend")
    error, of_fading = ((each - truth).square().mean((1, 2, 3)) for each in (found, faded))
    new = torch.arange(48) % 3 > 0
    assert error[new].mean() < 0.3 * of_fading[new].mean()
    assert bool((error[-2:] < 0.6 * of_fading[-2:]).all())


def test_there_is_no_special_frame(found: torch.Tensor) -> None:
    """A loop that begins elsewhere gives the same frames."""
    turned = interpolate_loop(turning_disc(16).roll(5, 0), 3)
    torch.testing.assert_close(turned, found.roll(15, 0))


def test_a_still_loop_stays_still() -> None:
    frames = turning_disc(16)[:1].repeat(3, 1, 1, 1)
    torch.testing.assert_close(interpolate_loop(frames, 2), frames[:1].repeat(6, 1, 1, 1))


def test_tiny_frames_and_progress() -> None:
    done: list[int] = []
    frames = torch.rand(2, 3, 5, 3, generator=torch.Generator().manual_seed(0))
    assert interpolate_loop(frames, 4, progress=done.append).isfinite().all()
    assert done == [4, 8]


@pytest.mark.parametrize(
    ("times", "method", "count", "sentence"),
    [
        (1, "motion", 3, "times must be between 2 and 8, got 1"),
        (9, "motion", 3, "got 9"),
        (2, "magic", 3, "motion, blend, got 'magic'"),
        (2, "blend", 1, "at least 2 frames"),
    ],
)
def test_what_is_refused(times: int, method: str, count: int, sentence: str) -> None:
    with pytest.raises(LoopAnimateError, match=sentence):
        interpolate_loop(torch.zeros(count, 16, 16, 3), times, method)


def test_without_opencv_fading_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    frames = turning_disc(4)
    assert len(interpolate_loop(frames, 2, "blend")) == 8
    with pytest.raises(
        LoopAnimateError, match="interpolation by motion needs the Python package cv2"
    ):
        interpolate_loop(frames, 2)
