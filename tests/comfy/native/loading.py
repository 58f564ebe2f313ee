"""What the nodes import and load: data types, LoRAs, parts."""

from __future__ import annotations

import dataclasses

import comfy.lora
import comfy.sample
import folder_paths
import torch
from comfy.clip_vision import ClipVisionModel
from LoopAnimate.nodes.build_loop_conditions import BuildLoopConditions
from LoopAnimate.nodes.load_loopanimate import LoadLoopAnimate
from LoopAnimate.nodes.native.encoders import build_clip_vision
from LoopAnimate.nodes.native.load import load_bundle
from safetensors.torch import load_file
from toy import FOLDER, FRAMES, IMPORTED, close_to, core, sample, toy

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.shapes import Shape


def check_import_is_light() -> None:
    """Importing the extension does not import heavy packages."""
    heavy = ("cv2", "onnxruntime", "diffusers", "transformers", "imageio_ffmpeg", "scipy")
    found = [name for name in IMPORTED if name.split(".")[0] in heavy]
    assert not found, found
    assert not [name for name in IMPORTED if ".nodes.native" in name]


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


def check_size_0_is_the_shape_nearest_to_the_picture() -> None:
    """Build Loop Conditions, with the shapes that come with the image encoder."""
    loaded = toy()
    texts = [[core()["text"], {}]], [[core()["negative"], {}]]

    def size(vision: object, height: int, width: int) -> tuple[int, ...]:
        picture = torch.rand(1, height, width, 3)
        made = BuildLoopConditions.execute(
            *texts, vision, loaded.vae, picture, width=0, height=0, frames=5, start=1.0
        )
        return tuple(made.args[2][0]["samples"].shape[-2:])

    assert size(loaded.clip_vision, 48, 90) == (8, 8)  # the toy has one size
    config = dataclasses.replace(
        loaded.model.model.bundle_config, shapes=(Shape(64, 64), Shape(80, 48), Shape(48, 80))
    )
    state = loaded.clip_vision.model.state_dict()
    vision = build_clip_vision(config.image_encoder, state, config.all_shapes)
    for height, width, latent in ((48, 90, (6, 10)), (90, 48, (10, 6)), (50, 52, (8, 8))):
        assert size(vision, height, width) == latent
    try:
        size(ClipVisionModel.__new__(ClipVisionModel), 48, 90)
    except LoopAnimateError as error:
        assert "width and height must be set" in str(error)
    else:
        raise AssertionError("a size was made up for another image encoder")


def check_parts() -> None:
    """Load a checkpoint and PIA's motion module with the node, as PIA and as the paper's architecture."""
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
    found = model.model.bundle_config
    assert (found.conditioning, found.unet.routing) == ("pia", ("text",) * 3)
    assert found.schedule.beta_schedule == "linear"
    two_unets = {**chosen, "image_unet": "checkpoint.safetensors"}
    folder_paths.add_model_folder_path("diffusion_models", str(FOLDER / "parts"))
    ours = LoadLoopAnimate.execute("parts", **two_unets).args[0].model.bundle_config
    assert (ours.conditioning, ours.unet.routing[0]) == ("loop", "image")
    without = {**chosen, "clip_vision": "none"}
    blind = LoadLoopAnimate.execute("parts", **without, dtype="fp32").args
    made = BuildLoopConditions.execute(
        *([[torch.rand(1, 7, 64), {}]] for _ in range(2)),
        blind[2],
        blind[3],
        torch.rand(1, 64, 64, 3),
        width=0,
        height=64,
        frames=5,
        start=1.0,
        motion="large",
    )
    options = made.args[0][0][0][1]
    assert options["loop_motion"] == "large" and not options["loop_image_embeds"].any()
    assert made.args[2][0]["samples"].shape[-2:] == (8, 64)  # the assembled model's 512 pixels
    try:
        LoadLoopAnimate.execute("parts", **{**two_unets, "clip_vision": "none"})
    except LoopAnimateError as error:
        assert "clip_vision must be" in str(error), error
    else:
        raise AssertionError("the paper's architecture was loaded without an image encoder")
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
