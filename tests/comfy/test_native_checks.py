"""Runs `native/run.py` once in ComfyUI's own Python, and compares the results with the core's."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy_server import python_of
from toy_bundle import build_toy_bundle, build_toy_vae

from loopanimate_core.bundle import Bundle, mini_bundle_path, read_bundle, write_bundle
from loopanimate_core.bundle.components import vae_settings
from loopanimate_core.closing import Closing, closed
from loopanimate_core.conditions import LoopConditions
from loopanimate_core.convert.extract import extract
from loopanimate_core.encoders.image import encode_image
from loopanimate_core.encoders.text import encode_prompts
from loopanimate_core.encoders.vae import decode_latents, encode_frames
from loopanimate_core.models import LoopUNetConfig
from loopanimate_core.picture.images import fit_picture, load_picture
from loopanimate_core.preconditioning import Preconditioning
from loopanimate_core.sampling import guided_denoiser, sample_loop
from loopanimate_core.schedule import ScheduleConfig, make_scheduler
from loopanimate_training.loop import train
from loopanimate_training.model.export import export_bundle
from loopanimate_training.testing import toy_run

CHECKS = Path(__file__).parent / "native"
NAMES = [
    name
    for path in sorted(CHECKS.glob("*.py"))
    for name in re.findall(r"^def (check_\w+)", path.read_text(), re.M)
]
MAX_FRAMES, SIDE, STEPS = 45, 8, 4


def core_results(toy_path: Path, trained_path: Path) -> dict[str, torch.Tensor]:
    """The core's embeddings, latents and loops sampled with Euler."""
    found: dict[str, torch.Tensor] = {}
    picture = fit_picture(load_picture(mini_bundle_path().parent / "pictures/ghost.png"), 64, 64)
    found["picture"] = picture
    toy = read_bundle(toy_path)
    for name, bundle in {"toy": toy, "mini": read_bundle(mini_bundle_path())}.items():
        prompt = ["a ghost, bobbing up and down!"]
        found[f"{name}_text"] = encode_prompts(bundle.tokenizer, bundle.text_encoder, prompt)
        found[f"{name}_image"] = encode_image(bundle.image_encoder, picture.movedim(-1, 0)[None])
        found |= coded(name, bundle.vae, picture)
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    found |= {
        "still": draw(1, 4, SIDE, SIDE),
        "mask": (draw(1, 1, SIDE, SIDE) > 0).float(),
        "image_embeds": draw(1, 1, 16),
        "text": draw(1, 77, 16),
        "negative": draw(1, 77, 16),
        "noise": draw(MAX_FRAMES, 4, SIDE, SIDE),
        "sigmas": make_scheduler_with_steps(toy.config.schedule).sigmas,
    }
    for prior in (0.0, 0.5):
        for closing, frames in (("tie", 5), ("shift", 5), ("off", 5), ("windows", 45)):
            found[f"euler_{closing}_{prior}"] = euler(toy, found, closing, frames, prior)
    pia = dataclasses.replace(toy.config, conditioning="pia")
    found["euler_pia"] = euler(dataclasses.replace(toy, config=pia), found, "shift", 6, 0.0)
    found["euler_trained"] = euler(read_bundle(trained_path), found, "tie", 5, 0.0)
    return {name: tensor.detach().contiguous() for name, tensor in found.items()}


def make_scheduler_with_steps(schedule: ScheduleConfig) -> Any:
    scheduler = make_scheduler("euler", schedule)
    scheduler.set_timesteps(STEPS)
    return scheduler


def euler(
    toy: Bundle, given: dict[str, torch.Tensor], closing_name: str, frames: int, prior: float
) -> torch.Tensor:
    """A loop sampled by the core with Euler, `[P, 4, h, w]`, not scaled."""
    schedule = dataclasses.replace(toy.config.schedule, still_prior=prior)
    conditions = LoopConditions(
        given["still"],
        given["mask"],
        given["image_embeds"],
        given["text"],
        given["negative"],
        frames,
        toy.config.conditioning,
    )
    closing = Closing(closing_name, frames, toy.config.window_frames(frames))
    scheduler = make_scheduler_with_steps(schedule)
    noise = given["noise"][: closing.sampled_frames].transpose(0, 1)[None]
    x = given["still"][:, :, None] + noise * scheduler.sigmas[0]
    with torch.inference_mode():
        preconditioning = Preconditioning(schedule)
        denoise = guided_denoiser(toy.unet, conditions, 2.0, preconditioning=preconditioning)
        ring = closed(denoise, closing, len(scheduler.timesteps))
        loop = sample_loop(ring, x, scheduler, scheduler.timesteps)
    return loop[0].transpose(0, 1) / toy.config.vae_scaling_factor


def coded(name: str, vae: Any, picture: torch.Tensor) -> dict[str, torch.Tensor]:
    """A picture's latents, not scaled, and the decoded picture."""
    latents = encode_frames(vae, picture[None])
    unscaled = latents[:, :, 0] / vae.config.scaling_factor
    return {f"{name}_latents": unscaled, f"{name}_decoded": decode_latents(vae, latents)}


def make_kl() -> Any:
    torch.manual_seed(0)
    return build_toy_vae("kl", groups=32, block_out_channels=(32, 32, 64, 64))


def make_parts(folder: Path) -> None:
    """A small Stable Diffusion 1.x in three files, and the bundle they were extracted from."""
    unet = LoopUNetConfig(block_out_channels=(32, 64, 64, 64), cross_attention_dim=64)
    bundle = build_toy_bundle(
        "kl",
        unet=unet,
        tokenizer="clip",
        image_px=28,
        patch_px=14,
        schedule=ScheduleConfig("linear"),
    )
    extract(bundle, folder, "checkpoint")
    extract(bundle, folder, "pia")
    write_bundle(folder / "whole.safetensors", bundle, torch.float32)


def make_trained(folder: Path, toy_path: Path) -> Path:
    """The toy after three training steps with a high learning rate, exported."""
    sizes = {"clip.f": 3, "clip.height_px": 64, "clip.width_px": 64}
    learning = {"optimizer.lr": 0.01, "optimizer.warmup_steps": 0, "optimizer.ema_decay": 0}
    config = toy_run(folder / "training", toy_path, steps=3, **sizes, **learning)
    train(config)
    path = folder / "trained.safetensors"
    export_bundle(config.out, path, torch.float32)
    return path


@pytest.fixture(scope="module")
def results(
    comfyui: Path, toy_bundle_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str | None]:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("checks")
    shutil.copy(toy_bundle_path, folder / "toy.safetensors")
    shutil.copy(mini_bundle_path(), folder / "mini.safetensors")
    wide = LoopUNetConfig(
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        cross_attention_dim=16,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        norm_num_groups=4,
    )
    write_bundle(folder / "wide.safetensors", build_toy_bundle(unet=wide), title="Wide")
    tensors = core_results(toy_bundle_path, make_trained(folder, toy_bundle_path))
    kl = make_kl()
    with torch.inference_mode():
        tensors |= coded("kl", kl, tensors["picture"])
    save_file(
        {name: t.contiguous() for name, t in tensors.items()}, str(folder / "core.safetensors")
    )
    save_file(kl.state_dict(), str(folder / "kl.safetensors"))
    (folder / "kl.json").write_text(json.dumps(vae_settings(kl.config)))
    make_parts(folder / "parts")
    environment = {**os.environ, "PYTHONPATH": str(comfyui), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [python_of(comfyui), str(CHECKS / "run.py"), str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=1800,
    )
    assert run.returncode == 0, run.stderr[-6000:]
    print(run.stderr[-6000:])
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_check(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]
