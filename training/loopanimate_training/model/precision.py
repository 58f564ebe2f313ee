"""Mixed precision: trained weights in float32, arithmetic in bfloat16 or float16.

Autocast rounds the weights of linear and convolution layers every time they are used, so frozen ones can be
stored rounded: half the memory, and bit for bit the same results.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from loopanimate_core.errors import LoopAnimateError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
FIRST_SCALE, LARGEST_SCALE, STEPS_BEFORE_LARGER = 2.0**16, 2.0**24, 2000
BAD_STEPS_IN_A_ROW = 10


def autocast(precision: str, device: torch.device) -> Any:
    """A context with arithmetic in `precision` (`no`, `bf16`, `fp16`) on a device."""
    if precision not in DTYPES:
        return nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


@contextmanager
def safe_kernels(precision: str, device: torch.device) -> Iterator[None]:
    """Avoids oneDNN's half-precision convolutions on CPUs: with few channels their gradients are wrong, and
    sometimes infinite (torch 2.13)."""
    if precision == "no" or device.type != "cpu":
        yield
        return
    with torch.backends.mkldnn.flags(enabled=False):
        yield


def round_frozen_weights(network: nn.Module, precision: str) -> None:
    """Store the frozen weights that autocast rounds in their rounded form."""
    if precision not in DTYPES:
        return
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.requires_grad:
            module.weight.data = module.weight.data.to(DTYPES[precision])


class StepGuard:
    """Decides whether a step's gradient may be used, and scales the loss in float16 runs.

    Small gradients underflow in float16, so the loss is multiplied by `scale`, which halves when a gradient
    overflows and doubles after STEPS_BEFORE_LARGER steps without an overflow (Micikevicius et al. 2018).
    In other precisions the scale is 1. All processes see the same gradient norm, so they decide alike.
    """

    def __init__(self, precision: str) -> None:
        self._scales = precision == "fp16"
        self.scale = FIRST_SCALE if self._scales else 1.0
        self._steps_since = 0
        self._bad_steps = 0

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale."""
        for parameter in parameters if self._scales else ():
            if parameter.grad is not None:
                parameter.grad.div_(self.scale)

    def accepts(self, grad_norm: Tensor) -> bool:
        """Whether the optimiser may step, judged by the gradient norm.

        Raises:
            LoopAnimateError: too many steps in a row were not finite, although the scale is down to 1.
        """
        if grad_norm.isfinite():
            self._bad_steps = 0
            self._steps_since += 1
            if self._scales and self._steps_since >= STEPS_BEFORE_LARGER:
                self._change_scale(min(2 * self.scale, LARGEST_SCALE))
            return True
        if self.scale > 1.0:
            self._change_scale(self.scale / 2)
            return False
        self._bad_steps += 1
        if self._bad_steps == BAD_STEPS_IN_A_ROW:
            raise LoopAnimateError(
                f"the gradient was not finite in {BAD_STEPS_IN_A_ROW} steps in a row"
            )
        return False

    def state(self) -> tuple[float, int] | None:
        """What a checkpoint keeps."""
        return (self.scale, self._steps_since) if self._scales else None

    def restore(self, state: tuple[float, int] | None) -> None:
        if state is not None and self._scales:
            self.scale, self._steps_since = state

    def _change_scale(self, scale: float) -> None:
        self.scale, self._steps_since = scale, 0
