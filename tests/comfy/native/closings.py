"""The closings, under every sampler."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from LoopAnimate.nodes.native.closing import close_loops
from toy import FRAMES, close_to, sample, toy

from loopanimate_core.errors import LoopAnimateError


def check_tie_is_bit_equal_under_every_sampler() -> None:
    for name in comfy.samplers.KSampler.SAMPLERS:
        found = sample(toy().model, sampler=name)
        assert len(found) == FRAMES and torch.isfinite(found).all(), name
        assert torch.equal(found[0], found[-1]), name
        assert not torch.equal(found[0], found[1]), name


def check_tie_with_noise_left_over() -> None:
    """Also if sampling stops half way."""
    sigmas = comfy.samplers.calculate_sigmas(
        toy().model.get_model_object("model_sampling"), "normal", 6
    )
    found = sample(toy().model, sampler="euler_ancestral", sigmas=sigmas[:4])
    assert torch.equal(found[0], found[-1])


def check_closing_again_replaces_the_first() -> None:
    model = close_loops(close_loops(toy().model, "off"), "tie")
    close_to(sample(model), sample(toy().model))
    try:
        close_loops(toy().model, "knot")
    except LoopAnimateError as error:
        assert "knot" in str(error)
    else:
        raise AssertionError("an unknown closing was taken")


def check_context_windows_are_rejected() -> None:
    model = toy().model.clone()
    model.model_options["context_handler"] = None
    sample(model)

    class Handler:
        def should_use_context(self, *args: Any) -> bool:
            return False

    model.model_options["context_handler"] = Handler()
    try:
        sample(model)
    except LoopAnimateError as error:
        assert "Context Windows" in str(error)
    else:
        raise AssertionError("Context Windows were taken")
