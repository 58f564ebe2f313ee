"""Graphs in API format for the tests."""

from __future__ import annotations

import shutil
from typing import Any

from comfy_server import PACK, ComfyServer

Graph = dict[str, Any]
BEST = "model's best"


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def give_picture(server: ComfyServer, name: str = "ghost.png") -> str:
    """Copy one of the bundled pictures into the input folder, where Load Image finds it."""
    shutil.copy(PACK / "loopanimate_core/data/pictures" / name, server.base_dir / "input" / name)
    return name


def load_node(bundle: str = "mini (bundled)", **parts: str) -> dict[str, Any]:
    names = ("checkpoint", "image_unet", "motion_module", "clip_vision")
    chosen = {name: parts.get(name, "none") for name in names}
    return node(
        "LoopAnimate_LoadLoopAnimate", bundle=bundle, **chosen, dtype=parts.get("dtype", "auto")
    )


def conditions_graph(
    image: str,
    *,
    bundle: str = "mini (bundled)",
    prompt: str = "bobbing up and down",
    side: int = 96,
    frames: int = 15,
    start: float = 1.0,
    **parts: str,
) -> Graph:
    """Model "load", picture "image", prompts, and Build Loop Conditions "build"."""
    return {
        "load": load_node(bundle, **parts),
        "positive": node("CLIPTextEncode", clip=["load", 1], text=prompt),
        "negative": node("CLIPTextEncode", clip=["load", 1], text=""),
        "image": node("LoadImage", image=image),
        "build": node(
            "LoopAnimate_BuildLoopConditions",
            positive=["positive", 0],
            negative=["negative", 0],
            clip_vision=["load", 2],
            vae=["load", 3],
            image=["image", 0],
            width=side,
            height=side,
            frames=frames,
            start=start,
        ),
    }


def saved(latent: list[Any], prefix: str = "loop", vae: str = "load") -> Graph:
    """Decode a latent and save its frames as node "save"."""
    return {
        "decode": node("VAEDecode", samples=latent, vae=[vae, 3]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix=prefix),
    }


def loop_check() -> dict[str, Any]:
    """Loop Check of the decoded frames."""
    return node(
        "LoopAnimate_LoopCheck",
        images=["decode", 0],
        fps=8.0,
        jump_ratio=1.6,
        frozen_change=3.0,
        on_fail="warn",
    )


def loop_graph(
    image: str,
    *,
    seed: int = 1,
    steps: int = 0,
    cfg: float = 0.0,
    sampler: str = BEST,
    scheduler: str = BEST,
    closing: str = "tie",
    prefix: str = "loop",
    **conditions: Any,
) -> Graph:
    """Picture to saved frames of a loop, with Loop Sampler."""
    sample = node(
        "LoopAnimate_LoopSampler",
        model=["load", 0],
        positive=["build", 0],
        negative=["build", 1],
        latent=["build", 2],
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler=sampler,
        scheduler=scheduler,
        closing=closing,
    )
    return conditions_graph(image, **conditions) | {"sample": sample} | saved(["sample", 0], prefix)


def ksampler_graph(
    image: str,
    *,
    seed: int = 1,
    steps: int = 2,
    cfg: float = 2.0,
    sampler: str = "euler",
    prefix: str = "stock",
    model: list[Any] | None = None,
    **conditions: Any,
) -> Graph:
    """The same with ComfyUI's KSampler; `model` may be the output of a node in between."""
    sample = node(
        "KSampler",
        model=model or ["load", 0],
        positive=["build", 0],
        negative=["build", 1],
        latent_image=["build", 2],
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler,
        scheduler="normal",
        denoise=1.0,
    )
    return conditions_graph(image, **conditions) | {"sample": sample} | saved(["sample", 0], prefix)


def pictures(server: ComfyServer, entry: dict[str, Any], save: str = "save") -> list[bytes]:
    """The saved frames, as raw pixels (files differ in their metadata)."""
    import io

    from PIL import Image

    files = [server.view(file) for file in entry["outputs"][save]["images"]]
    return [Image.open(io.BytesIO(file)).tobytes() for file in files]
