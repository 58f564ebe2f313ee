"""The pack as ComfyUI imports it, the toy model, and how the checks sample it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.samplers
from safetensors.torch import load_file
from torch import Tensor

PACK = Path(__file__).resolve().parent.parent.parent.parent
FOLDER = Path(sys.argv[1])
IMPORTED: set[str] = set()
"""The modules that importing the pack brought."""

FRAMES, SIDE = 5, 8  # of the clips sampled here; the side in latent pixels


def import_pack() -> None:
    """Import the pack as ComfyUI does, as `LoopAnimate`."""
    known = set(sys.modules)
    spec = importlib.util.spec_from_file_location(
        "LoopAnimate", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec and spec.loader
    module = sys.modules["LoopAnimate"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    asyncio.run(module.comfy_entrypoint())
    IMPORTED.update(set(sys.modules) - known)


@cache
def toy() -> Any:
    from LoopAnimate.nodes.native.load import load_bundle

    return load_bundle(FOLDER / "toy.safetensors", "fp32")


@cache
def core() -> dict[str, Tensor]:
    """The core's results."""
    return load_file(str(FOLDER / "core.safetensors"))


def conditions(model: Any) -> tuple[Any, Any]:
    """Positive and negative conditioning from Build Loop Conditions."""
    given = core()
    picture = {
        "loop_still": model.model.process_latent_out(given["still"]),
        "loop_mask": given["mask"],
        "loop_image_embeds": given["image_embeds"],
    }
    return [[given["text"], dict(picture)]], [[given["negative"], dict(picture)]]


def sample(
    model: Any,
    *,
    sampler: str = "euler",
    sigmas: Tensor | None = None,
    noise: Tensor | None = None,
    cfg: float = 2.0,
    frames: int = FRAMES,
    callback: Any = None,
    positive: Any = None,
) -> Tensor:
    still = model.model.process_latent_out(core()["still"]).repeat(frames, 1, 1, 1)
    if noise is None:
        noise = comfy.sample.prepare_noise(still, 0)
    if sigmas is None:
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "normal", 3)
    own_positive, negative = conditions(model)
    return comfy.sample.sample_custom(
        model,
        noise,
        cfg,
        comfy.samplers.sampler_object(sampler),
        sigmas,
        positive or own_positive,
        negative,
        still,
        callback=callback,
        disable_pbar=True,
        seed=0,
    )


def close_to(found: Tensor, expected: Tensor, tolerance: float = 1e-3) -> None:
    """Equal but for float32 rounding, which differs between two installations of torch."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    worst = (found.float() - expected.float()).abs().max() / expected.abs().max()
    assert worst < tolerance, f"relative difference {worst:.2g}"
