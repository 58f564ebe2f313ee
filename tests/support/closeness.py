"""How close is equal: tolerances that follow from the arithmetic.

Another instruction set, number of threads or size of a batch adds the same terms in another order.
Each addition then rounds differently by up to eps of its dtype, up or down, so the differences add up
like a random walk: after `depth` layers the result differs by about eps·√depth of its size. What a
mistake changes (a missing term, a wrong factor, a swapped input) is far above that. So an error is
measured by its norm relative to the norm of what is expected, and held below `ROOM`·eps·√depth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

ROOM = 16.0  # kernels differ by about one eps·√depth
NETWORK = 100  # layers of a toy UNet, one after another: attention, norms, convolutions
GRADIENT_ROOM = 64.0  # times more: backward passes every layer again and multiplies its errors
NEGLIGIBLE = 1e-2  # of the whole gradient's norm


def tolerance(dtype: torch.dtype, depth: int = 1) -> float:
    """Relative error that rounding explains after `depth` layers in `dtype`."""
    return ROOM * torch.finfo(dtype).eps * math.sqrt(depth)


def gradient_tolerance(dtype: torch.dtype) -> float:
    """Relative error that rounding explains in the gradients of a network, and in a few steps along them."""
    return GRADIENT_ROOM * tolerance(dtype, NETWORK)


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """The norm of the difference, relative to the norm of `expected`."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-30))


def assert_close(
    actual: Tensor, expected: Tensor, *, depth: int = 1, dtype: torch.dtype | None = None
) -> None:
    """The same numbers but for rounding.

    Args:
        depth: layers between the inputs and the numbers; `NETWORK` for a whole one.
        dtype: the coarsest in which something was computed or stored; by default that of the tensors.
    """
    coarse = dtype or max(actual.dtype, expected.dtype, key=lambda kind: torch.finfo(kind).eps)
    error, limit = relative_error(actual, expected), tolerance(coarse, depth)
    assert error <= limit, f"relative error {error:.2g}, more than {limit:.2g}"


def assert_different(actual: Tensor, expected: Tensor) -> None:
    """More than rounding tells them apart, by a wide margin: what a setting is meant to change."""
    error, limit = relative_error(actual, expected), 10 * tolerance(actual.dtype, NETWORK)
    assert error > limit, f"relative error {error:.2g}: the same but for rounding"


def assert_close_gradients(
    actual: Mapping[Any, Tensor],
    expected: Mapping[Any, Tensor],
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Each tensor of a gradient, or of another step-sized quantity, relative to its own norm.

    Some gradients are zero but for rounding (a bias before a softmax), so a tensor counts as if its norm
    were at least `NEGLIGIBLE` of that of them all.
    """
    assert actual.keys() == expected.keys()
    whole = math.sqrt(sum(float(g.double().square().sum()) for g in expected.values()))
    assert math.isfinite(whole) and whole > 0
    for name, gradient in expected.items():
        error = float((actual[name].double() - gradient.double()).norm())
        size = max(float(gradient.double().norm()), NEGLIGIBLE * whole)
        limit = gradient_tolerance(dtype or gradient.dtype)
        assert error <= limit * size, f"{name}: relative error {error / size:.2g} > {limit:.2g}"
