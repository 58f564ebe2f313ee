"""LoopAnimatePipeline end to end on a toy bundle."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close

from loopanimate_core import LoopAnimateError, LoopAnimatePipeline
from loopanimate_core.picture.images import Picture
from loopanimate_core.picture.shapes import Shape
from loopanimate_core.sampling import StepState

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def pipeline(toy_bundle_path: Path) -> LoopAnimatePipeline:
    return LoopAnimatePipeline.from_bundle(toy_bundle_path)


@pytest.fixture
def picture() -> torch.Tensor:
    picture = torch.full((70, 90, 3), 0.9)
    picture[20:50, 30:60] = torch.tensor([0.8, 0.2, 0.1])
    return picture


def test_returns_frames_of_a_loop(pipeline: LoopAnimatePipeline, picture: torch.Tensor) -> None:
    states: list[StepState] = []
    loop = pipeline(picture, "a box bobbing", frames=7, steps=3, seed=5, callback=states.append)
    height, width = pipeline.bundle.config.height_px, pipeline.bundle.config.width_px
    assert loop.frames.shape == (6, height, width, 3)
    assert loop.latents.shape[:3] == (1, 4, 6)
    assert loop.frames.min() >= 0 and loop.frames.max() <= 1
    assert set(loop.mask.unique().tolist()) <= {0.0, 1.0}
    assert [state.step for state in states] == [0, 1, 2]


@pytest.mark.parametrize("closing", ["tie", "shift", "windows", "off"])
def test_every_closing_returns_one_frame_less_than_requested(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor, closing: str
) -> None:
    assert len(pipeline(picture, "", frames=9, steps=2, seed=0, closing=closing).frames) == 8


def test_same_seed_gives_the_same_loop(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor
) -> None:
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


def test_height_and_width_can_be_set(pipeline: LoopAnimatePipeline, picture: torch.Tensor) -> None:
    loop = pipeline(picture, "", frames=5, steps=1, seed=0, height_px=40, width_px=72)
    assert loop.frames.shape[1:] == (40, 72, 3)


@pytest.mark.parametrize("size", [(54, 96), (96, 54), (64, 66)])
def test_the_loop_has_the_shape_nearest_to_the_picture(
    pipeline: LoopAnimatePipeline, size: tuple[int, int]
) -> None:
    shapes = {(54, 96): (48, 80), (96, 54): (80, 48), (64, 66): (64, 64)}
    listed = tuple(Shape(width, height) for height, width in shapes.values())
    config = dataclasses.replace(pipeline.bundle.config, shapes=listed)
    shaped = LoopAnimatePipeline(dataclasses.replace(pipeline.bundle, config=config))
    picture = torch.rand(*size, 3, generator=torch.Generator().manual_seed(0))
    loop = shaped(picture, "", frames=5, steps=1, seed=0, mask="none")
    assert loop.frames.shape == (4, *shapes[size], 3)
    assert loop.frames_at("original")[1].shape == (*size, 3)
    assert shaped(picture, "", frames=5, steps=1, seed=0, height_px=64, width_px=64).frames.shape[
        1:3
    ] == (64, 64)


def test_diffusers_parameter_names_are_accepted(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor
) -> None:
    ours = pipeline(picture, "a box", frames=5, steps=4, seed=0, guidance=3.0, start=0.5)
    theirs = pipeline(
        picture, "a box", num_frames=5, steps=4, seed=0, guidance_scale=3.0, strength=0.5
    )
    assert_close(ours.frames, theirs.frames, depth=NETWORK)


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": -1},
        {"steps": 0},
        {"guidance": -1.0},
        {"guidance_scale": -1.0},
        {"image_guidance": -1.0},
        {"scheduler": "magic"},
        {"preset": "magic"},
        {"closing": "knot"},
        {"frames": 2},
        {"frames": 1000},
        {"start": 2.0},
        {"hold_still": 1.5},
        {"mask": "cut"},
        {"mask": torch.ones(3, 8, 8)},
        {"height_px": 0},
        {"width_px": 50},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_invalid_settings_are_rejected_before_any_network_runs(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor, settings: dict[str, Any]
) -> None:
    bundle, ran = pipeline.bundle, []
    networks = (bundle.unet, bundle.vae, bundle.text_encoder, bundle.image_encoder)
    layers = [layer for network in networks for layer in network.modules()]
    hooks = [layer.register_forward_pre_hook(lambda *_: ran.append(1)) for layer in layers]
    try:
        with pytest.raises(LoopAnimateError):
            pipeline(picture, "a box", **settings)
        assert not ran
        pipeline(picture, "a box", frames=5, steps=1)
        assert ran
    finally:
        for hook in hooks:
            hook.remove()


def test_frames_at_is_the_loop_in_the_pictures_own_pixels(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor
) -> None:
    loop = pipeline(picture, "a box bobbing", frames=7, steps=2, seed=0)
    drawn = loop.frames_at(fps=2 * loop.fps)
    assert (len(drawn), drawn.height_px, drawn.width_px) == (12, 70, 90)
    assert torch.equal(drawn[0], picture)
    assert loop.frames_at("48x32", mode="off")[3].shape == (32, 48, 3)


def test_frames_at_uses_the_mask_that_was_given_with_the_picture(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor
) -> None:
    box = torch.zeros(70, 90)
    box[20:50, 30:60] = 1.0
    matte = pipeline(picture, "", frames=5, steps=1, seed=0, mask=box).frames_at().matte
    assert float((matte - box).abs().mean()) < 0.03
    found = pipeline(picture, "", frames=5, steps=1, seed=0).frames_at().matte  # looked for
    assert float((found - box).abs().mean()) < 0.03


def test_frames_at_keeps_a_small_mask_that_was_given(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor
) -> None:
    """Even where the object would be found: what the caller says comes first."""
    small = torch.zeros(pipeline.bundle.config.height_px, pipeline.bundle.config.width_px)
    small[20:40, 20:44] = 1.0
    loop = pipeline(picture, "", frames=5, steps=1, seed=0, mask=small)
    assert loop.source_mask is not None and torch.equal(loop.source_mask, loop.mask)
