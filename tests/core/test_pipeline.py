"""LoopAnimatePipeline end to end on a toy bundle."""

from pathlib import Path

import pytest
import torch

from loopanimate_core import LoopAnimateError, LoopAnimatePipeline
from loopanimate_core.picture.images import Picture
from loopanimate_core.sampling import StepState


@pytest.fixture(scope="module")
def pipeline(toy_bundle_path: Path) -> LoopAnimatePipeline:
    return LoopAnimatePipeline.from_bundle(toy_bundle_path)


@pytest.fixture
def picture() -> torch.Tensor:
    picture = torch.full((70, 90, 3), 0.9)
    picture[20:50, 30:60] = torch.tensor([0.8, 0.2, 0.1])
    return picture


def test_a_picture_becomes_frames_that_play(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor
) -> None:
    states: list[StepState] = []
    loop = pipeline(picture, "a box bobbing", frames=7, steps=3, seed=5, callback=states.append)
    height, width = pipeline.bundle.config.height_px, pipeline.bundle.config.width_px
    assert loop.frames.shape == (6, height, width, 3)
    assert loop.latents.shape[:3] == (1, 4, 6)
    assert loop.frames.min() >= 0 and loop.frames.max() <= 1
    assert set(loop.mask.unique().tolist()) <= {0.0, 1.0}
    assert [state.step for state in states] == [0, 1, 2]


@pytest.mark.parametrize("closing", ["tie", "shift", "windows", "off"])
def test_every_closing_plays_one_frame_less(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor, closing: str
) -> None:
    assert len(pipeline(picture, "", frames=9, steps=2, seed=0, closing=closing).frames) == 8


def test_the_seed_decides(pipeline: LoopAnimatePipeline, picture: torch.Tensor) -> None:
    runs = [pipeline(picture, "a box", frames=5, steps=2, seed=seed).frames for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    drawn = pipeline(picture, "a box", frames=5, steps=2)
    again = pipeline(picture, "a box", frames=5, steps=2, seed=drawn.seed)
    assert torch.equal(drawn.frames, again.frames)


def test_alpha_is_the_mask(pipeline: LoopAnimatePipeline, picture: torch.Tensor) -> None:
    alpha = torch.zeros(64, 64)
    alpha[16:48, 16:48] = 1
    loop = pipeline(Picture(picture[:64, :64], alpha), "a box", frames=5, steps=1, seed=0)
    assert loop.mask.mean() == pytest.approx(0.25, abs=0.03)
    whole = pipeline(picture, "a box", frames=5, steps=1, seed=0, mask="none")
    assert whole.mask.min() == 1


def test_size_is_the_callers_choice(pipeline: LoopAnimatePipeline, picture: torch.Tensor) -> None:
    loop = pipeline(picture, "", frames=5, steps=1, seed=0, height_px=40, width_px=72)
    assert loop.frames.shape[1:] == (40, 72, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 2}, "frames is 2"),
        ({"frames": 1000}, "1000 frames are more than"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"start": 2.0}, "start is 2.0"),
        ({"preset": "magic"}, "preset is 'magic'; choose best or fast"),
        ({"closing": "knot"}, "closing is 'knot'"),
        ({"scheduler": "magic"}, "unknown scheduler 'magic'"),
        ({"mask": "cut"}, "mask is 'cut'"),
        ({"height_px": 50}, "50"),
    ],
)
def test_illegal_settings_are_refused(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor, settings: dict, message: str
) -> None:
    with pytest.raises(LoopAnimateError, match=message):
        pipeline(picture, "a box", **{"frames": 5, "steps": 1, **settings})
