"""The shapes that loops are published in."""

from __future__ import annotations

import pytest
import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video.shapes import PRESETS, apply_preset


def ramp(frames: int = 3, height: int = 40, width: int = 60, channels: int = 3) -> torch.Tensor:
    return torch.linspace(0, 1, frames * height * width * channels).reshape(
        frames, height, width, channels
    )


@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if row.aspect])
@pytest.mark.parametrize("size", [(512, 512), (287, 613), (900, 333)])
def test_a_preset_cuts_the_largest_middle_of_its_shape(name: str, size: tuple[int, int]) -> None:
    height, width = size
    cut = apply_preset(torch.zeros(1, height, width, 3), name)
    aspect = PRESETS[name].aspect
    assert aspect is not None
    assert cut.shape[1] % 2 == cut.shape[2] % 2 == 0
    assert cut.shape[2] / cut.shape[1] == pytest.approx(float(aspect), rel=0.02)
    if PRESETS[name].longest_px is None:
        assert cut.shape[1] >= height - 1 or cut.shape[2] >= width - 1


def test_a_preset_keeps_the_middle() -> None:
    frames = torch.zeros(1, 40, 80, 3)
    frames[:, 19:21, 39:41] = 1
    for name in PRESETS:
        cut = apply_preset(frames, name)
        height, width = cut.shape[1:3]
        assert cut[0, height // 2, width // 2].equal(torch.ones(3)), name


def test_a_sticker_is_small_and_keeps_its_transparency() -> None:
    frames = torch.zeros(2, 700, 900, 4)
    frames[:, 200:500, 300:600] = torch.tensor([1.0, 0.5, 0.0, 1.0])
    cut = apply_preset(frames, "sticker")
    assert cut.shape == (2, 512, 512, 4)
    visible = cut[..., 3] > 0.05
    assert float((cut[..., :3][visible] - torch.tensor([1.0, 0.5, 0.0])).abs().max()) < 0.05
    assert float(cut[0, 0, 0, 3]) == 0 and float(cut[0, 256, 256, 3]) > 0.99


def test_as_it_is_touches_nothing_and_bad_presets_are_refused() -> None:
    frames = ramp()
    assert apply_preset(frames, "as it is") is frames
    with pytest.raises(LoopAnimateError, match="got 'round'"):
        apply_preset(frames, "round")
    with pytest.raises(LoopAnimateError, match="too small"):
        apply_preset(ramp(1, 24, 24), "ultrawide 21:9")
