"""Build the mini model from packaged data: steps whose result exists are skipped.

data → vae → encoders → start → stage1 → stage2 → stage3 → decoder → bundle → distil, all in one work folder. The
stages are ordinary runs of the trainer, with the settings in `presets/`. Every step ends after a given number of optimiser
steps.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from loopanimate_core.bundle import Bundle, BundleConfig, read_bundle, write_bundle
from loopanimate_core.bundle.components import (
    image_encoder_settings,
    text_encoder_settings,
    vae_settings,
)
from loopanimate_core.encoders.tokenizer import build_tokenizer
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.schedule import ScheduleConfig
from loopanimate_core.settings import SamplingDefaults

from ..config import resolve
from ..data.photographs import cutouts
from ..data.photographs import packages as photographs
from ..data.photographs.cutouts import CutoutCache
from ..data.stickers import packages as stickers
from ..data.stickers.emoji import EmojiCache
from ..data.stickers.source import CUTOUTS_FOLDER
from ..loop import train
from ..model.export import export_bundle, export_few_steps
from ..stages import DISTIL, stage_defaults
from .encoders import learn_vocabulary, train_encoders
from .vae import CropPhase, VaeRecipe
from .vae_training import QUALITY_FILE, VaeTrainer

PRESETS_FOLDER = Path(__file__).parent / "presets"
LICENSE = (
    "Apache-2.0; trained on Microsoft Fluent emoji (MIT, @lobehub/fluent-emoji-anim 1.0.0) and on photographs "
    "from the packages in data/photographs/table.py"
)
DESCRIPTION = (
    "Loops of an object under a mask, in stickers and photographs: sixteen motions and staying still. "
    "Trained with LoopAnimate's stages."
)

STILL_PRIOR = (
    0.3  # standard deviation of a frame from its still: 0.23 on average, 0.48 where it moves
)


@dataclass(frozen=True)
class Preset:
    """Sizes of one mini model; the settings of its stages are `{name}_stage{n}.yaml` in `folder`.

    Attributes:
        size_px: side of the square shape.
        shapes_px: height and width of all shapes: square, 16:9 and 9:16, of about equal area.
    """

    name: str
    size_px: int
    unet: LoopUNetConfig
    vae: VaeRecipe
    encoder_steps: int = 940
    precision: str = "no"
    shapes_px: tuple[tuple[int, int], ...] = cutouts.SHAPES_PX
    folder: Path = PRESETS_FOLDER
    defaults: SamplingDefaults = field(
        default_factory=lambda: SamplingDefaults(steps=12, guidance=1.0, hold_still=0.06)
    )


def _unet(channels: tuple[int, ...], layers: int, heads: int) -> LoopUNetConfig:
    return LoopUNetConfig(
        block_out_channels=channels,
        layers_per_block=layers,
        cross_attention_dim=128,
        num_attention_heads=heads,
        motion_num_attention_heads=heads,
        norm_num_groups=8,
    )


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("cpu", 96, _unet((48, 96, 128), 1, 2), VaeRecipe(bf16=True)),
        Preset(
            "gpu",
            128,
            _unet((48, 96, 144, 144), 2, 4),
            VaeRecipe(
                size_px=128,
                channels=64,
                encoder_blocks=(1, 3, 3, 3),
                decoder_blocks=(3, 3, 3, 1),
                learning_rate=1e-3,
                joint=(
                    CropPhase(steps=3_000, crop_px=32, batch=512),
                    CropPhase(steps=1_500, crop_px=64, batch=256),
                    CropPhase(steps=1_500, crop_px=128, batch=128),
                ),
                decoder=CropPhase(steps=2_500, crop_px=128, batch=128),
                bf16=True,
                device="cuda",
                workers=12,
            ),
            precision="bf16",
            shapes_px=((128, 128), (96, 168), (168, 96)),
        ),
    )
}


class Build:
    """The steps, in order, for one work folder."""

    def __init__(
        self,
        work: str | Path,
        preset: str | Preset = "cpu",
        archives: str | Path | None = None,
        stages: int = 3,
    ) -> None:
        if isinstance(preset, str):
            if preset not in PRESETS:
                raise LoopAnimateError(
                    f"preset must be one of {', '.join(PRESETS)}, got {preset!r}"
                )
            preset = PRESETS[preset]
        self.work, self.preset, self.stages = Path(work), preset, range(1, stages + 1)
        self.archives = Path(archives) if archives else None
        self.work.mkdir(parents=True, exist_ok=True)

    @property
    def steps(self) -> dict[str, Callable[[], None]]:
        """All steps by name, in order."""
        return {
            "data": self.data,
            "vae": self.vae,
            "encoders": self.encoders,
            "start": self.start,
            **{
                f"stage{number}": lambda number=number: self.stage(number) for number in self.stages
            },
            "decoder": self.decoder,
            "bundle": self.bundle,
            "distil": self.distil,
        }

    def run(self, last: str = "distil") -> None:
        """Do the steps that are not done yet, up to the step `last`."""
        for name, step in self.steps.items():
            print(f"== {name}", flush=True)
            step()
            if name == last:
                return

    def data(self) -> None:
        """Download the packages; make the photographs, the sticker cache and the cut-outs of them."""
        data, pictures = self.work / "data", self.work / "photographs"
        if self._with_photographs and not (pictures / photographs.MANIFEST).is_file():
            photographs.prepare(photographs.download(self._archives / "photographs"), pictures)
        if not (data / "emoji.json").is_file():
            stickers.prepare(self._sticker_packages(), data, stamps=pictures / "cutouts")
        cut = data / CUTOUTS_FOLDER
        if self._with_photographs and not (cut / cutouts.INDEX_FILE).is_file():
            cutouts.prepare(pictures / "photographs", cut, self.preset.shapes_px)

    @property
    def _archives(self) -> Path:
        return self.archives or self.work / "archives"

    @property
    def _with_photographs(self) -> bool:
        """Always, unless the packages are given and no photographs are among them."""
        return self.archives is None or (self.archives / "photographs").is_dir()

    def _sticker_packages(self) -> list[Path]:
        if self.archives is None:
            return stickers.download(self._archives)
        if not (found := sorted(self.archives.glob("*.tgz"))):
            raise LoopAnimateError(f"--archives {self.archives} holds no .tgz files")
        return found

    def vae(self) -> None:
        """Train the autoencoder until its encoder is frozen."""
        if not (self.work / "vae" / "frozen" / QUALITY_FILE).is_file():
            self._vae_trainer().run_joint()

    def encoders(self) -> None:
        """Learn the vocabulary, then the text and image encoders."""
        if (self.work / "tokenizer.json").is_file():
            return
        words = (text for emoji in self.stickers.emoji for text in (emoji.name, *emoji.tags))
        vocabulary = learn_vocabulary(words)
        text, image, quality = train_encoders(
            self.stickers, vocabulary, steps=self.preset.encoder_steps
        )
        text.save_pretrained(self.work / "text_encoder")
        image.save_pretrained(self.work / "image_encoder")
        print(quality)
        with atomic_write(self.work / "tokenizer.json") as path:
            path.write_text(json.dumps(vocabulary))

    def start(self) -> None:
        """The bundle that stage 1 starts from: the networks so far and a random UNet."""
        target = self.work / "start.safetensors"
        if target.is_file():
            return
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
        from transformers import CLIPTextModel, CLIPVisionModelWithProjection

        vae: Any = AutoencoderTiny.from_pretrained(self.work / "vae" / "frozen")
        text: Any = CLIPTextModel.from_pretrained(self.work / "text_encoder")
        image: Any = CLIPVisionModelWithProjection.from_pretrained(self.work / "image_encoder")
        vocabulary = json.loads((self.work / "tokenizer.json").read_text())
        torch.manual_seed(0)
        unet = LoopUNet(self.preset.unet)
        unet.zero_motion()
        config = BundleConfig(
            unet=self.preset.unet,
            vae=vae_settings(vae.config, "AutoencoderTiny"),
            text_encoder=text_encoder_settings(text.config),
            image_encoder=image_encoder_settings(image.config),
            tokenizer=vocabulary,
            schedule=ScheduleConfig(prediction_type="v_prediction", still_prior=STILL_PRIOR),
            frames=(15,),  # those of stage 1; later stages add theirs
            height_px=self.preset.size_px,
            width_px=self.preset.size_px,
            defaults=self.preset.defaults,
        )
        networks = (network.eval() for network in (unet, vae, text, image))
        bundle = Bundle(config, *networks, tokenizer=build_tokenizer(vocabulary))
        write_bundle(target, bundle, torch.float32, title="LoopAnimate mini, untrained")

    def stage(self, number: int, changes: Mapping[str, Any] | None = None) -> None:
        """One stage, from the one before it; an unfinished run is resumed. `changes` are further settings."""
        start = self.work / ("start.safetensors" if number == 1 else f"stage{number - 1}")
        settings = {
            "out": self.work / f"stage{number}",
            "precision": self.preset.precision,
            "model.start": start,
            "data.path": self.work / "data",
            "data.cache": self.work / "latents",
            "clip.shapes": [[width_px, height_px] for height_px, width_px in self.preset.shapes_px],
            **(changes or {}),
        }
        file = self.preset.folder / f"{self.preset.name}_stage{number}.yaml"
        overrides = [f"{name}={value}" for name, value in settings.items()]
        outcome = train(resolve(number, file, overrides))
        if outcome.exit_code:
            raise SystemExit(outcome.exit_code)

    def decoder(self) -> None:
        """Train the decoder further; the UNet depends on the encoder alone."""
        if not (self.work / "vae" / "final" / QUALITY_FILE).is_file():
            self._vae_trainer().run_decoder()

    def bundle(self) -> None:
        """Write `mini.safetensors`: the averaged weights of the last stage and the final decoder, in half precision."""
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

        name = f"stage{self.stages[-1]}"
        trained = self.work / f"{name}.safetensors"
        export_bundle(self.work / name, trained, torch.float32)
        bundle = read_bundle(trained)
        bundle.vae = AutoencoderTiny.from_pretrained(self.work / "vae" / "final").eval()  # type: ignore[attr-defined]
        bundle.config = dataclasses.replace(
            bundle.config,
            vae=vae_settings(bundle.vae.config, "AutoencoderTiny"),
            defaults=dataclasses.replace(
                self.preset.defaults, frames=bundle.config.defaults.frames
            ),
        )
        write_bundle(
            self.work / "mini.safetensors",
            bundle,
            title="LoopAnimate mini",
            author="LoopAnimate",
            license=LICENSE,
            description=DESCRIPTION,
        )

    def distil(self) -> None:
        """Distil the last stage, and write `mini.safetensors` again with the few-step weights."""
        bundle, last = self.work / "mini.safetensors", self.stages[-1]
        # From the run and with its clips, not from the bundle: the cached latents fit.
        f = stage_defaults(last)["clip"]["f"]
        self.stage(DISTIL, {"model.start": self.work / f"stage{last}", "clip.f": f})
        export_few_steps(self.work / f"stage{DISTIL}", bundle, bundle)

    def _vae_trainer(self) -> VaeTrainer:
        folder = self.work / "data" / CUTOUTS_FOLDER
        cut = CutoutCache(folder) if folder.is_dir() else None
        return VaeTrainer(self.stickers, self.work / "vae", self.preset.vae, cut)

    @property
    def stickers(self) -> EmojiCache:
        return EmojiCache(self.work / "data")
