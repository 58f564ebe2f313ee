"""Prompt travel: its syntax, weights on the ring, and a loop whose frames read different prompts."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from loopanimate_core import LoopAnimateError, LoopAnimatePipeline
from loopanimate_core.encoders.text import encode_around, encode_prompts
from loopanimate_core.travel import PromptTravel, check_prompt, parse_travel

pytestmark = pytest.mark.numeric

KEYS = [(0,), (5,), (0, 12), (3, 4, 20), (33,), (0, 33), (7, 8, 9, 30)]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("0: a fox bobbing, 12: a fox swaying", {0: "a fox bobbing", 12: "a fox swaying"}),
        ("12:swaying;\n 3 : a fox, red, bobbing ,", {3: "a fox, red, bobbing", 12: "swaying"}),
        ("0: wide, 16:9, noon 12:30", {0: "wide, 16:9, noon 12:30"}),
        ("7: (bobbing:1.2)", {7: "(bobbing:1.2)"}),
    ],
)
def test_keys(prompt: str, expected: dict[int, str]) -> None:
    assert parse_travel(prompt) == PromptTravel(tuple(expected), tuple(expected.values()))


@pytest.mark.parametrize("prompt", ["", "a fox", "a fox, 16:9", "note: a fox", "at 12: a fox"])
def test_a_prompt_without_keys_is_plain(prompt: str) -> None:
    assert parse_travel(prompt) is None


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("0: bobbing, 12:", "no text at frame 12"),
        ("0: bobbing, 0: swaying", "two texts at frame 0"),
        ("-1: bobbing", "whole numbers from 0.*got -1"),
        ("0: bobbing, 1.5: swaying", "whole numbers from 0.*got 1.5"),
        ("a fox, 12: swaying", "must begin with one.*'a fox'"),
        ("0: bobbing, 12345678901: swaying", "whole numbers"),
        ("0: bobbing, 34: swaying", "a key at frame 34, but the frames of this loop are 0 to 33"),
    ],
)
def test_bad_keys_get_one_sentence(prompt: str, sentence: str) -> None:
    with pytest.raises(LoopAnimateError, match=sentence) as caught:
        check_prompt(prompt, 35)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("positions", KEYS)
def test_weights_of_every_frame_add_up_to_1(positions: tuple[int, ...]) -> None:
    weights = torch.tensor(PromptTravel(positions, ("x",) * len(positions)).weights(34))
    assert weights.shape == (34, len(positions)) and bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(1), torch.ones(34))
    assert bool((weights.count_nonzero(dim=1) <= 2).all())
    torch.testing.assert_close(weights[list(positions)], torch.eye(len(positions)))


@pytest.mark.parametrize("positions", KEYS)
def test_weights_are_continuous_across_the_seam(positions: tuple[int, ...]) -> None:
    """No step is larger than over the shortest way between two keys, the step from the last frame to the first either."""
    weights = torch.tensor(PromptTravel(positions, ("x",) * len(positions)).weights(34))
    steps = (weights - weights.roll(-1, 0)).abs().amax(1)
    for here, there in pairwise([*positions, positions[0] + 34]):
        frames = torch.arange(here, there) % 34
        assert bool((steps[frames] <= 1 / (there - here) + 1e-6).all())


def test_turning_the_keys_turns_the_weights() -> None:
    travel = PromptTravel((1, 9, 20), ("a", "b", "c")).weights(30)
    turned = PromptTravel((4, 12, 23), ("a", "b", "c")).weights(30)
    torch.testing.assert_close(torch.tensor(travel).roll(3, 0), torch.tensor(turned))


@pytest.fixture(scope="module")
def pipeline(toy_bundle_path: Path) -> LoopAnimatePipeline:
    return LoopAnimatePipeline.from_bundle(toy_bundle_path)


def test_embeddings_travel(pipeline: LoopAnimatePipeline) -> None:
    bundle = pipeline.bundle
    prompts = ["0: bobbing, 4: swaying", ""]
    travel, plain = encode_around(bundle.tokenizer, bundle.text_encoder, prompts, 8)
    bobbing, swaying = encode_prompts(bundle.tokenizer, bundle.text_encoder, ["bobbing", "swaying"])
    assert travel.shape[:2] == (1, 8) and plain.shape == (1, *travel.shape[2:])
    torch.testing.assert_close(travel[0, 0], bobbing)
    torch.testing.assert_close(travel[0, 4], swaying)
    torch.testing.assert_close(travel[0, 2], (bobbing + swaying) / 2)
    torch.testing.assert_close(travel[0, 6], travel[0, 2])


@pytest.fixture
def picture() -> torch.Tensor:
    picture = torch.full((64, 64, 3), 0.9)
    picture[20:50, 20:50] = torch.tensor([0.8, 0.2, 0.1])
    return picture


@pytest.mark.parametrize("closing", ["tie", "shift", "windows", "off"])
def test_one_key_is_the_plain_prompt(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor, closing: str
) -> None:
    options: dict[str, Any] = {"frames": 9, "steps": 2, "seed": 0, "closing": closing}
    plain = pipeline(picture, "a box bobbing", **options).latents
    travel = pipeline(picture, "5: a box bobbing", **options).latents
    torch.testing.assert_close(travel, plain, rtol=1e-3, atol=1e-3)


def test_both_prompts_may_travel(pipeline: LoopAnimatePipeline, picture: torch.Tensor) -> None:
    options: dict[str, Any] = {"frames": 9, "steps": 2, "seed": 0}
    plain = pipeline(picture, "bobbing", **options).latents
    for prompt, negative in (("0: bobbing, 4: swaying", ""), ("bobbing", "0: blur, 4: noise")):
        found = pipeline(picture, prompt, negative_prompt=negative, **options).latents
        assert found.shape == plain.shape and not torch.allclose(found, plain)
    blind = pipeline(picture, "0: bobbing, 4: swaying", image_guidance=2, **options).latents
    assert bool(blind.isfinite().all())


def test_a_key_after_the_last_frame_is_refused_before_sampling(
    pipeline: LoopAnimatePipeline, picture: torch.Tensor
) -> None:
    with pytest.raises(LoopAnimateError, match="frames of this loop are 0 to 7"):
        pipeline(picture, "8: bobbing", frames=9)
