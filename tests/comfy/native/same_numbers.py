"""The same numbers as the core."""

from __future__ import annotations

import dataclasses
import json

import comfy.model_base
import folder_paths
import torch
from LoopAnimate.nodes.load_loopanimate import LoadLoopAnimate
from LoopAnimate.nodes.native.closing import close_loops
from LoopAnimate.nodes.native.few_steps import with_few_steps
from LoopAnimate.nodes.native.load import load_bundle
from LoopAnimate.nodes.native.model import LoopModelConfig, build_model
from LoopAnimate.nodes.native.preview import small_frames
from LoopAnimate.nodes.native.still import without_flicker
from LoopAnimate.nodes.native.vae import build_vae, fit_colours
from safetensors.torch import load_file
from toy import FOLDER, FRAMES, close_to, core, sample, toy

from loopanimate_core.bundle import read_parts
from loopanimate_core.bundle.few_steps import few_step_tensors, few_step_unet
from loopanimate_core.bundle.lora import LowRank
from loopanimate_core.models import LoopUNet
from loopanimate_core.sampling import filter_flicker
from loopanimate_core.schedule import ScheduleConfig, alphas_cumprod


def check_euler_agrees_with_the_core() -> None:
    """The same loop from the same noise: every closing, with and without a still prior."""
    given = core()
    parts = read_parts(FOLDER / "toy.safetensors")
    for prior in (0.0, 0.5):
        schedule = dataclasses.replace(parts.config.schedule, still_prior=prior)
        config = dataclasses.replace(parts.config, schedule=schedule)
        model = build_model(config, parts.states["unet"], toy().model.model.latent_format, "fp32")
        for closing, frames in (("tie", 5), ("shift", 5), ("off", 5), ("windows", 45)):
            sigmas = given["sigmas"]
            noise = given["noise"][:frames] * sigmas[0] / (1 + sigmas[0] ** 2).sqrt()
            found = sample(close_loops(model, closing), sigmas=sigmas, noise=noise, frames=frames)
            expected = given[f"euler_{closing}_{prior}"]
            close_to(found[: len(expected)], expected)


def check_pia_agrees_with_the_core() -> None:
    """The model decides what is put beside the noise; the prompts are those of every other model."""
    given, sigmas = core(), core()["sigmas"]
    parts = read_parts(FOLDER / "toy.safetensors")
    config = dataclasses.replace(parts.config, conditioning="pia")
    model = build_model(config, parts.states["unet"], toy().model.model.latent_format, "fp32")
    noise = given["noise"][:6] * sigmas[0] / (1 + sigmas[0] ** 2).sqrt()
    found = sample(close_loops(model, "shift"), sigmas=sigmas, noise=noise, frames=6)
    close_to(found[: len(given["euler_pia"])], given["euler_pia"])


def check_a_trained_bundle() -> None:
    """A bundle exported by the trainer: the node loads its weights and samples the core's loop."""
    folder_paths.add_model_folder_path("loopanimate", str(FOLDER))
    assert LoadLoopAnimate.fingerprint_inputs(bundle="trained.safetensors")
    model, clip, vision, vae = LoadLoopAnimate.execute("trained.safetensors", dtype="fp32").args
    start, trained = (load_file(str(FOLDER / f"{name}.safetensors")) for name in ("toy", "trained"))
    weights = model.model.diffusion_model.state_dict()
    for name, tensor in weights.items():
        assert torch.equal(tensor, trained[f"unet.{name}"].float()), name
    changed = [n for n in weights if not torch.equal(start[f"unet.{n}"], trained[f"unet.{n}"])]
    assert changed and all("conv_in" in name or "motion_modules" in name for name in changed)
    given = core()
    noise = given["noise"][:FRAMES] * given["sigmas"][0] / (1 + given["sigmas"][0] ** 2).sqrt()
    found = sample(model, sigmas=given["sigmas"], noise=noise)
    close_to(found[: len(given["euler_trained"])], given["euler_trained"])
    assert (found[: FRAMES - 1] - given["euler_tie_0.0"]).abs().max() > 0.01
    assert torch.isfinite(vae.decode(found)).all()
    assert torch.isfinite(clip.encode_from_tokens(clip.tokenize("a square"))).all()
    assert torch.isfinite(vision.encode_image(torch.rand(1, 64, 64, 3)).image_embeds).all()


def check_schedules_agree_with_the_core() -> None:
    config = read_parts(FOLDER / "toy.safetensors").config
    for name in ("scaled_linear", "linear"):
        schedule = ScheduleConfig(beta_schedule=name, prediction_type="epsilon")
        own = LoopModelConfig(
            dataclasses.replace(config, schedule=schedule), toy().model.model.latent_format
        )
        sampling = comfy.model_base.model_sampling(own, comfy.model_base.ModelType.EPS)
        alpha_bar = alphas_cumprod(schedule)
        close_to(sampling.sigmas, ((1 - alpha_bar) / alpha_bar).sqrt())


def check_flicker_filter_agrees_with_the_core() -> None:
    """Levels are for scaled latents; ComfyUI's latents are not scaled."""
    model = load_bundle(FOLDER / "mini.safetensors").model
    scale = model.model.latent_format.scale_factor = 0.18215  # Stable Diffusion's
    still, change = torch.randn(1, 4, 4, 4), 0.1 * torch.rand(1, 1, 4, 4)
    z = still[:, :, None] + change[:, :, None] * torch.randn(1, 4, 7, 4, 4)
    prompt = {"loop_still": still / scale, "loop_mask": torch.ones(1, 1, 4, 4)}
    positive = [[None, {}], [None, prompt]]
    found = without_flicker(model, z[0].transpose(0, 1) / scale, positive, 0.05)
    close_to(found * scale, filter_flicker(z, still, 0.05)[0].transpose(0, 1))
    assert not torch.equal(found * scale, z[0].transpose(0, 1))


def check_text_encoder() -> None:
    for name in ("toy", "mini"):
        clip = load_bundle(FOLDER / f"{name}.safetensors").clip
        found = clip.encode_from_tokens(clip.tokenize("a ghost, bobbing up and down!"))
        close_to(found, core()[f"{name}_text"], 5e-3)  # the weights are kept in fp16


def check_image_encoder() -> None:
    from LoopAnimate.nodes.build_loop_conditions import embed_picture

    for name in ("toy", "mini"):
        encoder = load_bundle(FOLDER / f"{name}.safetensors").clip_vision
        close_to(embed_picture(encoder, core()["picture"]), core()[f"{name}_image"], 2e-2)


def check_vaes() -> None:
    given = core()
    vaes = {name: load_bundle(FOLDER / f"{name}.safetensors").vae for name in ("toy", "mini")}
    settings = json.loads((FOLDER / "kl.json").read_text())
    vaes["kl"] = build_vae(settings, load_file(str(FOLDER / "kl.safetensors")))
    for name, vae in vaes.items():
        latents = vae.encode(given["picture"][None])
        close_to(latents, given[f"{name}_latents"])
        close_to(vae.decode(latents), given[f"{name}_decoded"])


def check_previews() -> None:
    """Previews are close to the decoded frames; with Stable Diffusion's VAE, to its known colours."""
    given = core()
    latents = given["mini_latents"].repeat(5, 1, 1, 1)
    latent_format = load_bundle(FOLDER / "mini.safetensors").model.model.latent_format
    frames = small_frames(latent_format.process_in(latents), latent_format)
    assert frames.shape == (5, 128, 128, 3)
    small = torch.nn.functional.interpolate(frames.movedim(-1, 1), size=64, mode="area")
    assert (small.movedim(1, -1) - given["mini_decoded"]).abs().mean() < 0.02
    latent_format.tiny_decoder = None
    assert small_frames(latents, latent_format).shape == (5, 64, 64, 3)
    exact = torch.randn(2, 4, 3, 5)
    factors = torch.randn(4, 3) / 4
    colours = torch.einsum("nchw,cr->nhwr", exact, factors) / 2 + 0.5
    close_to(torch.tensor(fit_colours(exact, colours)[0]), factors, 0.02)


def check_few_steps_are_patches() -> None:
    """The few-step weights change a clone of the MODEL to what the core merges; the MODEL stays as it was."""
    given = toy().model
    parts = read_parts(FOLDER / "toy.safetensors")
    unet = LoopUNet(parts.config.unet)
    unet.load_state_dict({name: t.float() for name, t in parts.states["unet"].items()})
    generator = torch.Generator().manual_seed(0)
    updates = {
        name: LowRank(
            torch.randn(2, layer.in_features, generator=generator),
            torch.randn(layer.out_features, 2, generator=generator),
            alpha=1.0,
        )
        for name, layer in unet.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    tensors = {**few_step_tensors(updates), "conv_in.bias": torch.ones_like(unet.conv_in.bias)}
    merged = build_model(
        parts.config,
        few_step_unet(unet, tensors).state_dict(),
        given.model.latent_format,
        "fp32",
    )
    before = sample(given, sampler="lcm")
    assert with_few_steps(given) is given  # the toy has none
    given.model.few_steps = tensors
    fast = with_few_steps(given)
    given.model.few_steps = {}
    found = sample(fast, sampler="lcm")
    close_to(found, sample(merged, sampler="lcm"))
    assert (found - before).abs().max() > 0.01
    assert torch.equal(found[0], found[-1])
    assert torch.equal(sample(given, sampler="lcm"), before)
