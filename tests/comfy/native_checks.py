"""Checks of the native types in ComfyUI's own Python process.

    PYTHONPATH=COMFYUI python native_checks.py FOLDER

FOLDER holds what `test_native_checks.py` made: bundles, parts, and the core's results for them. Every
function `check_…` runs; the last line printed is a JSON object of their tracebacks, null if a check passed.
"""

# ruff: noqa: E402  (what is imported depends on the arguments)
from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import math
import sys
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parent.parent.parent
FOLDER = Path(sys.argv[1])

from comfy.cli_args import args

args.cpu = True  # before anything looks for a GPU

import comfy.lora
import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.sd
import folder_paths
import torch
from safetensors.torch import load_file
from torch import Tensor


def load_pack() -> Any:
    """Import the pack as ComfyUI does."""
    spec = importlib.util.spec_from_file_location(
        "LoopAnimate", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec and spec.loader
    module = sys.modules["LoopAnimate"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return asyncio.run(module.comfy_entrypoint())


KNOWN = set(sys.modules)
load_pack()
IMPORTED = set(sys.modules) - KNOWN

from LoopAnimate.nodes.load_loopanimate import LoadLoopAnimate
from LoopAnimate.nodes.native.closing import close_loops
from LoopAnimate.nodes.native.load import load_bundle
from LoopAnimate.nodes.native.model import LoopModelConfig, build_model
from LoopAnimate.nodes.native.preview import small_frames
from LoopAnimate.nodes.native.still import without_flicker
from LoopAnimate.nodes.native.unet import (
    comfys_attention,
    comfys_attention_is_better,
    use_attention,
)
from LoopAnimate.nodes.native.vae import build_vae, fit_colours

from loopanimate_core.bundle import read_parts
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.sampling import filter_flicker
from loopanimate_core.schedule import ScheduleConfig, alphas_cumprod

FRAMES, SIDE = 5, 8  # of the clips sampled here; the side in latent pixels


@cache
def toy() -> Any:
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


def check_import_is_light() -> None:
    """Importing the extension does not import heavy packages."""
    heavy = ("cv2", "onnxruntime", "diffusers", "transformers", "imageio_ffmpeg", "scipy")
    found = [name for name in IMPORTED if name.split(".")[0] in heavy]
    assert not found, found
    assert not [name for name in IMPORTED if ".nodes.native" in name]


# --------------------------------------------------------------------- the same numbers as the core
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
    positive = [[None, {}], [None, {"loop_still": still / scale}]]
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


# ------------------------------------------------------------------------------------------ closing
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


# ------------------------------------------------------------------------------- speed and memory
def rows_seen(model: Any, layer: str, call: Any) -> list[int]:
    """The batch sizes that a layer of the network sees during `call()`."""
    rows: list[int] = []
    module = model.model.diffusion_model.get_submodule(layer)
    hook = module.register_forward_pre_hook(lambda _, inputs: rows.append(len(inputs[0])))
    try:
        call()
    finally:
        hook.remove()
    return rows


def check_branches_share_the_down_path() -> None:
    model = toy().model
    last = "up_blocks.3.resnets.0"
    assert set(rows_seen(model, "conv_in", lambda: sample(model))) == {FRAMES}
    assert set(rows_seen(model, last, lambda: sample(model))) == {2 * FRAMES}
    positive, _ = conditions(model)
    positive[0][1]["loop_image_embeds"] = positive[0][1]["loop_image_embeds"] * 2
    other = rows_seen(model, "conv_in", lambda: sample(model, positive=positive))
    assert set(other) == {2 * FRAMES}  # the branches see different pictures
    speedups = model.model.diffusion_model.speedups
    shared = sample(model)
    speedups.shared_down = False
    try:
        close_to(sample(model), shared)
    finally:
        speedups.shared_down = True


def check_comfyuis_attention() -> None:
    """ComfyUI's attention, used if ComfyUI does not choose torch's, gives the same numbers."""
    assert not comfys_attention_is_better()  # on a CPU
    model = load_bundle(FOLDER / "toy.safetensors", "fp32").model
    use_attention(model.model.diffusion_model, comfys_attention)
    close_to(sample(model), sample(toy().model))


class ShortOfMemory:
    """Makes a layer run out of memory above a number of rows."""

    def __init__(self, model: Any, rows: int) -> None:
        self.unet, self.rows, self.failed = model.model.diffusion_model, rows, 0

    def __enter__(self) -> ShortOfMemory:
        layer = self.unet.get_submodule("up_blocks.3.resnets.0")
        self.hook = layer.register_forward_pre_hook(self.fail)
        return self

    def __exit__(self, *_: object) -> None:
        self.hook.remove()
        self.unet._chunks.clear()

    def fail(self, _module: Any, inputs: Any) -> None:
        if len(inputs[0]) > self.rows:
            self.failed += 1
            raise comfy.model_management.OOM_EXCEPTION("CUDA out of memory. Tried to allocate")


def check_chunks_when_memory_is_short() -> None:
    expected = sample(toy().model)
    with ShortOfMemory(toy().model, rows=4) as short:
        found = sample(toy().model)
        assert short.failed == 2  # 5 frames, 3 frames; then 2 at a time for all steps
    close_to(found, expected)


def check_memory_that_is_too_short_is_a_sentence() -> None:
    with ShortOfMemory(toy().model, rows=0):
        try:
            sample(toy().model)
        except comfy.model_management.OOM_EXCEPTION as error:
            assert "not enough memory for 5 frames of 64 x 64 pixels" in str(error), error
        else:
            raise AssertionError("it ran without memory")


def check_partial_load() -> None:
    """Most weights stay in CPU memory and are cast when needed: the same loop."""
    expected = sample(toy().model)
    model = toy().model.clone()
    model.detach()
    device = comfy.model_management.get_torch_device()
    model.load(device, lowvram_model_memory=model.model_size() // 4)
    try:
        assert model.model.model_lowvram
        leaves = [
            m
            for m in model.model.diffusion_model.modules()
            if next(m.parameters(recurse=False), None) is not None
        ]
        assert all(hasattr(leaf, "comfy_cast_weights") for leaf in leaves)
        assert sum(leaf.comfy_cast_weights for leaf in leaves) > 0
        positive, _negative = conditions(model)
        x, t = torch.randn(FRAMES, 4, SIDE, SIDE), torch.full((FRAMES,), 5.0)
        loop = model.model.extra_conds(
            noise=x, device=device, cross_attn=positive[0][0], **positive[0][1]
        )
        inputs = {
            name: cond.process_cond(batch_size=FRAMES, device=device, area=None).cond
            for name, cond in loop.items()
        }
        partly = model.model.apply_model(x, t, **inputs)
    finally:
        model.detach()
    model.load(device, full_load=True)
    close_to(model.model.apply_model(x, t, **inputs), partly)
    close_to(sample(toy().model), expected)


def check_every_parameter_is_in_a_streamable_layer() -> None:
    network = toy().model.model.diffusion_model
    assert not list(network.buffers())
    streamed = {
        id(parameter)
        for module in network.modules()
        if hasattr(module, "comfy_cast_weights")
        for parameter in module.parameters(recurse=False)
    }
    assert streamed == {id(parameter) for parameter in network.parameters()}


def check_memory_estimate() -> None:
    model = toy().model.model
    one = model.memory_required([35, 4, 64, 64])
    assert model.memory_required([70, 4, 64, 64]) == 2 * one
    shapes = {"num_video_frames": [[1], [1]]}
    assert model.memory_required([800, 4, 64, 64], shapes) == model.memory_required([72, 4, 64, 64])


def check_interrupt_within_a_step() -> None:
    model, mm = toy().model, comfy.model_management
    calls: list[int] = []

    def interrupt(_module: Any, _inputs: Any) -> None:
        calls.append(1)
        mm.interrupt_current_processing()

    hook = model.model.diffusion_model.conv_in.register_forward_pre_hook(interrupt)
    try:
        sample(model)
    except mm.InterruptProcessingException:
        assert len(calls) == 1
    else:
        raise AssertionError("it was not interrupted")
    finally:
        hook.remove()
        mm.interrupt_current_processing(False)


# ---------------------------------------------------------------------------------------- types
def check_dtypes() -> None:
    exact = sample(toy().model)
    for dtype in ("fp16", "bf16"):
        model = load_bundle(FOLDER / "toy.safetensors", dtype).model
        assert model.model.get_dtype() == {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
        close_to(sample(model), exact, 0.05)
    try:
        load_bundle(FOLDER / "toy.safetensors", "int4")
    except LoopAnimateError as error:
        assert "int4" in str(error)


def check_lora_names() -> None:
    names = comfy.lora.model_lora_keys_unet(toy().model.model, {})
    for parameter in toy().model.model.diffusion_model.state_dict():
        if parameter.endswith(".weight"):
            stem = parameter.removesuffix(".weight")
            assert names["lora_unet_" + stem.replace(".", "_")] == f"diffusion_model.{parameter}"


def check_parts() -> None:
    """Load a checkpoint, PIA's motion module and CLIP's image encoder with the node."""
    names = {
        "checkpoint": ("checkpoints", "checkpoint.safetensors"),
        "motion_module": ("animatediff_models", "pia.safetensors"),
        "clip_vision": ("clip_vision", "image_encoder.safetensors"),
    }
    for kind, _name in names.values():
        folder_paths.add_model_folder_path(kind, str(FOLDER / "parts"))
    chosen = {part: name for part, (_, name) in names.items()}
    assert LoadLoopAnimate.fingerprint_inputs(bundle="parts", **chosen)
    model, clip, vision, vae = LoadLoopAnimate.execute("parts", **chosen, dtype="fp32").args
    expected = load_file(str(FOLDER / "parts/whole.safetensors"))
    for name, tensor in model.model.diffusion_model.state_dict().items():
        assert torch.equal(tensor, expected[f"unet.{name}"]), name
    assert model.model.bundle_config.schedule.beta_schedule == "linear"
    picture = torch.rand(1, 64, 64, 3)
    latents = vae.encode(picture)
    text = clip.encode_from_tokens(clip.tokenize("a cat"))
    embeds = vision.encode_image(picture).image_embeds[:, None]
    given = {
        "loop_still": latents,
        "loop_mask": torch.ones_like(latents[:, :1]),
        "loop_image_embeds": embeds,
    }
    noise = torch.randn(FRAMES, *latents.shape[1:])
    found = comfy.sample.sample(
        model,
        noise,
        2,
        1.0,
        "euler",
        "normal",
        [[text, given]],
        [[text, given]],
        latents.repeat(FRAMES, 1, 1, 1),
        disable_pbar=True,
        seed=0,
    )
    assert torch.isfinite(vae.decode(found)).all()
    swapped = {**chosen, "checkpoint": "pia.safetensors"}
    try:
        LoadLoopAnimate.execute("parts", **swapped)
    except LoopAnimateError as error:
        assert "pia.safetensors" in str(error), error
    else:
        raise AssertionError("a motion module was taken for a checkpoint")


def main() -> None:
    assert math.isclose(core()["still"].shape[-1], SIDE)
    results: dict[str, str | None] = {}
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            started = time.monotonic()
            try:
                with torch.inference_mode():  # as in ComfyUI's executor
                    check()
                results[name] = None
            except Exception:
                results[name] = traceback.format_exc()
            print(f"{time.monotonic() - started:6.2f} s {name}", file=sys.stderr)
    print(json.dumps(results))


main()
