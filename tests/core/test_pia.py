"""PIA's conditioning: equal to diffusers' PIAPipeline step by step, and closed by every closing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import relative_error
from networks import Parts
from torch import Tensor

from loopanimate_core import LoopAnimateError, LoopAnimatePipeline
from loopanimate_core.bundle import Bundle, bundle_info, read_bundle, write_bundle
from loopanimate_core.closing import CLOSINGS, Closing, closed
from loopanimate_core.conditions import MOTIONS, LoopConditions, affinity, static_condition
from loopanimate_core.convert.assemble import PartFiles, assemble
from loopanimate_core.convert.extract import extract
from loopanimate_core.convert.layouts import PIA_FROM_OURS
from loopanimate_core.encoders.text import encode_prompts
from loopanimate_core.preconditioning import Preconditioning
from loopanimate_core.sampling import StepState, guided_denoiser, sample_loop

pytestmark = pytest.mark.numeric

FRAMES = 16
CLOSE = 1e-4  # relative; guidance of 7.5 magnifies rounding


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Toy networks in the layouts of Stable Diffusion 1.x and PIA, with weights that matter."""
    root, parts = tmp_path_factory.mktemp("pia"), Parts()
    base = parts.save_folders(root / "sd15")
    parts.text_encoder.save_pretrained(root / "sd15" / "text_encoder")
    from diffusers.models.unets.unet_motion_model import MotionAdapter

    build: Any = MotionAdapter
    torch.manual_seed(1)
    adapter = build(
        block_out_channels=parts.unet.config["block_out_channels"],
        motion_max_seq_length=32,
        use_motion_mid_block=False,
        conv_in_channels=9,
    )
    adapter.save_pretrained(root / "adapter")
    return {"base": base, "adapter": root / "adapter"}


@pytest.fixture(scope="module")
def bundle(folders: dict[str, Path]) -> Bundle:
    return assemble(PartFiles(folders["base"], folders["adapter"]), conditioning="pia")


@pytest.fixture
def picture() -> Tensor:
    return torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(5))


def diffusers_pipeline(bundle: Bundle, folders: dict[str, Path]) -> Any:
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.models.unets.unet_motion_model import MotionAdapter
    from diffusers.pipelines.deprecated.pia.pipeline_pia import PIAPipeline
    from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler

    pipeline: Any = PIAPipeline(
        vae=bundle.vae,
        text_encoder=None,  # type: ignore[arg-type]  # embeddings are given
        tokenizer=None,  # type: ignore[arg-type]
        unet=UNet2DConditionModel.from_pretrained(folders["base"] / "unet"),  # type: ignore[arg-type]
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", timestep_spacing="linspace"
        ),
        motion_adapter=MotionAdapter.from_pretrained(folders["adapter"]),  # type: ignore[arg-type]
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
@pytest.mark.parametrize("motion", MOTIONS)
def test_equals_diffusers_step_by_step(
    bundle: Bundle, folders: dict[str, Path], picture: Tensor, motion: str
) -> None:
    """Same weights, noise, picture latent and prompt; `off` samples the same 16 frames as PIA's own loop."""
    torch.manual_seed(2)
    z_still = torch.randn(1, 4, 8, 8)
    noise = torch.randn(1, 4, FRAMES, 8, 8)
    text = encode_prompts(bundle.tokenizer, bundle.text_encoder, ["a box turns", ""])
    pipeline = diffusers_pipeline(bundle, folders)
    factor = pipeline.vae.config.scaling_factor
    still_latent = z_still / factor

    class Encoded:  # the VAE samples its posterior; both sides get the same latent
        def sample(self, _generator: Any = None) -> Tensor:
            return still_latent

    pipeline.vae.encode = lambda _image: type("Output", (), {"latent_dist": Encoded()})()
    theirs: list[Tensor] = []

    def keep(_pipe: Any, _step: int, _time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        theirs.append(values["latents"].clone())
        return values

    try:
        pipeline(
            image=picture.permute(2, 0, 1)[None],
            prompt_embeds=text[:1],
            negative_prompt_embeds=text[1:],
            num_frames=FRAMES,
            num_inference_steps=3,
            guidance_scale=7.5,
            motion_scale=3 + list(MOTIONS).index(motion),  # its rows for loops
            height=64,
            width=64,
            latents=noise.clone(),
            output_type="latent",
            callback_on_step_end=keep,
        )
    finally:
        del pipeline.vae.encode

    conditions = LoopConditions(
        z_still,
        torch.ones(1, 1, 8, 8),
        torch.zeros(1, 1, 64),
        text[:1],
        text[1:],
        FRAMES,
        conditioning="pia",
        motion=motion,
    )
    pipeline.scheduler.set_timesteps(3)
    denoise = guided_denoiser(
        bundle.unet, conditions, 7.5, preconditioning=Preconditioning(bundle.config.schedule)
    )
    states: list[StepState] = []
    sample_loop(
        closed(denoise, Closing("off", FRAMES, FRAMES), 3),
        noise * pipeline.scheduler.init_noise_sigma,
        pipeline.scheduler,
        pipeline.scheduler.timesteps,
        callback=states.append,
    )
    assert len(theirs) == len(states) == 3
    for ours, expected in zip((state.x for state in states), theirs, strict=True):
        assert relative_error(ours, expected) < CLOSE


@pytest.mark.parametrize("motion", MOTIONS)
@pytest.mark.parametrize("frames", [3, 16, 17, 35, 101])
def test_affinity_is_a_closed_curve_of_any_length(motion: str, frames: int) -> None:
    curve = affinity(frames, motion)
    assert curve.shape == (frames,)
    assert curve[0] == curve[-1] == 1
    assert curve[1:-1].max() < 1 and curve.min() >= min(MOTIONS[motion]) - 1e-6
    middle = curve[frames // 4 : -(frames // 4) or None]
    assert middle.min() == curve.min()  # farthest from the still half-way round


def test_affinity_has_pias_own_values_for_16_frames() -> None:
    from diffusers.pipelines.deprecated.pia.pipeline_pia import prepare_mask_coef_by_statistics

    for scale, motion in enumerate(MOTIONS, start=3):
        expected = prepare_mask_coef_by_statistics(FRAMES, 0, scale)
        assert torch.allclose(affinity(FRAMES, motion), torch.tensor(expected), atol=1e-6)
    assert affinity(35, "small").mean() > affinity(35, "medium").mean()
    assert affinity(35, "medium").mean() > affinity(35, "large").mean()


def test_the_still_is_at_every_frame_and_the_mask_is_not_read() -> None:
    still = torch.randn(1, 4, 5, 6)
    masks = [torch.zeros(1, 1, 5, 6), torch.ones(1, 1, 5, 6)]
    seen = [static_condition("pia", still, mask, 9, "large") for mask in masks]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0][:, :4], still[:, :, None].expand(-1, -1, 9, -1, -1))
    assert torch.equal(seen[0][0, 4, :, 2, 3], affinity(9, "large"))


@pytest.mark.parametrize("closing", CLOSINGS)
def test_every_closing_makes_a_loop(bundle: Bundle, picture: Tensor, closing: str) -> None:
    frames = 40 if closing == "windows" else 16
    loop = LoopAnimatePipeline(bundle)(
        picture,
        "a box turns",
        frames=frames,
        steps=1,
        seed=0,
        closing=closing,
        motion="large",
        height_px=64,
        width_px=64,
    )
    assert loop.frames.shape == (frames - 1, 64, 64, 3) and loop.frames.isfinite().all()


def test_motion_and_prompt_act(bundle: Bundle, picture: Tensor) -> None:
    pipeline = LoopAnimatePipeline(bundle)

    def latents(prompt: str, motion: str | None) -> Tensor:
        size: Any = {"height_px": 64, "width_px": 64}
        return pipeline(picture, prompt, steps=1, frames=6, seed=0, motion=motion, **size).latents

    base = latents("a box", None)
    assert torch.equal(base, latents("a box", "medium"))
    assert not torch.equal(base, latents("a box", "large"))
    assert not torch.equal(base, latents("a cat", None))


def test_a_bundle_without_image_encoder_survives_its_file(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.image_encoder is None and bundle.config.unet.routing == ("text",) * 3
    path = tmp_path / "pia.safetensors"
    write_bundle(path, bundle, torch.float32)
    back = read_bundle(path)
    assert back.config == bundle.config and back.image_encoder is None
    assert set(bundle_info(path).parameters) == {"unet", "vae", "text_encoder"}
    for name, tensor in bundle.unet.state_dict().items():
        assert torch.equal(tensor, back.unet.state_dict()[name]), name


def test_extracted_parts_make_the_same_model_again(bundle: Bundle, tmp_path: Path) -> None:
    for layout in ("checkpoint", "pia"):
        extract(bundle, tmp_path, layout)
    weights = bundle.unet.conv_in.weight[:, list(PIA_FROM_OURS)]
    checkpoint, pia = tmp_path / "checkpoint.safetensors", tmp_path / "pia.safetensors"
    assert weights.shape[1] == 9 and not (tmp_path / "image_encoder.safetensors").exists()
    again = assemble(PartFiles(checkpoint, pia), conditioning="pia")
    for name, tensor in bundle.unet.state_dict().items():
        assert torch.equal(tensor, again.unet.state_dict()[name]), name


def test_mistakes_are_named(
    bundle: Bundle, folders: dict[str, Path], toy_bundle_path: Path, picture: Tensor
) -> None:
    plain = PartFiles(folders["base"])
    with pytest.raises(LoopAnimateError, match="needs PIA's motion module"):
        assemble(plain, conditioning="pia")
    with pytest.raises(LoopAnimateError, match="conditioning must be one of loop, pia, got 'x'"):
        assemble(plain, conditioning="x")
    with pytest.raises(LoopAnimateError, match="motion must be one of small, medium, large"):
        LoopAnimatePipeline(bundle)(picture, "", motion="huge")
    with pytest.raises(LoopAnimateError, match="needs a model with PIA's conditioning"):
        LoopAnimatePipeline.from_bundle(toy_bundle_path)(picture, "", motion="large")
