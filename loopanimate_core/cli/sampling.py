"""How loops are sampled, and on which device: options that several commands share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import LoopAnimateError
from ..schedule import SCHEDULERS
from .options import DTYPES

if TYPE_CHECKING:
    import torch

# A copy, because the module of the original imports torch; a test compares the two.
CLOSINGS = ("tie", "shift", "windows", "off")


def add_frames_option(group: argparse._ArgumentGroup) -> None:
    """Add `--frames`."""
    group.add_argument(
        "--frames",
        "--num-frames",
        type=int,
        metavar="N",
        help="length of the loop with the still at both ends; N-1 frames play",
    )


def add_sampling_options(group: argparse._ArgumentGroup) -> None:
    """Add steps, few steps, sampler, guidance and closing; None means the model's own."""
    group.add_argument("--steps", type=int, metavar="N", help="denoising steps, 1 to 1000")
    group.add_argument(
        "--fast",
        action="store_true",
        help="few steps: with the model's few-step weights where it has them, else a draft",
    )
    group.add_argument("--scheduler", choices=list(SCHEDULERS), help="the sampler")
    group.add_argument(
        "--guidance",
        "--guidance-scale",
        type=float,
        metavar="X",
        help="how strongly to follow the prompt, 0 to 100; 1 is no guidance",
    )
    group.add_argument(
        "--closing",
        choices=CLOSINGS,
        help="how loops are closed (default: tie); `windows` allows any length, `off` does not close them",
    )


def add_device_options(group: argparse._ArgumentGroup) -> None:
    """Add `--device` and `--dtype`."""
    group.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or mps (default: cuda or mps if available)"
    )
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        help="number format of the weights (default: float16 on cuda, else float32)",
    )


def pick_device(name: str | None, dtype: str | None) -> tuple[torch.device, torch.dtype]:
    """The device and the number format of the weights that the options ask for, or the best there are.

    Raises:
        LoopAnimateError: this computer does not have the device.
    """
    import torch

    name = name or _best_device()
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise LoopAnimateError(f"device {name!r} is not available; cpu always is") from error
    return device, getattr(torch, dtype or ("float16" if device.type == "cuda" else "float32"))


def _best_device() -> str:
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
