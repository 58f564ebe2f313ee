"""The mini's VAE: an `AutoencoderTiny` trained from scratch in two phases.

Phase 1 trains encoder and decoder together. Then the encoder is frozen with its latents normalised (zero mean, unit
variance, so the scaling factor is 1) and the UNet can start; phase 2 goes on training the decoder alone, which changes
nothing the UNet has seen.

The class has no normalisation layers, so initialisation matters: default weights sit at the mean colour for minutes.
He weights, a zero last convolution in every residual block and a small output layer pass a linear code in five minutes.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from loopanimate_core.files import atomic_write

from ..data.stickers.clips import StickerClips
from ..data.stickers.emoji import EmojiCache

WARMUP_STEPS = 100
CLIPS_PER_BATCH = 512  # numbers set aside for one batch
QUALITY_FILE = "quality.json"
LOG_EVERY_S, SAVE_EVERY_S = 30.0, 120.0


@dataclass(frozen=True)
class VaeRecipe:
    """Sizes and schedule. Crops grow as training goes: (share of the phase, crop px, batch)."""

    size_px: int = 96
    channels: int = 32
    encoder_blocks: tuple[int, ...] = (
        0,
        1,
        2,
        2,
    )  # cheap on purpose: the UNet's training encodes every frame
    decoder_blocks: tuple[int, ...] = (2, 2, 2, 1)
    learning_rate: float = 2e-3
    decoder_learning_rate: float = 1e-3
    joint_minutes: float = 11.0
    decoder_minutes: float = 30.0
    crops: tuple[tuple[float, int, int], ...] = ((0.4, 32, 16), (0.75, 48, 12), (1.0, 96, 4))
    latent_noise: float = 0.05
    bf16: bool = False
    device: str = "cpu"
    workers: int = 1  # threads that render
    seed: int = 0


def build_vae(recipe: VaeRecipe) -> Any:
    """A fresh `diffusers.AutoencoderTiny`, factor 8, 4 latent channels."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    torch.manual_seed(recipe.seed)
    widths = (recipe.channels,) * 4
    vae = AutoencoderTiny(
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        num_encoder_blocks=recipe.encoder_blocks,
        num_decoder_blocks=recipe.decoder_blocks,
    )
    initialise(vae)
    return vae


def initialise(vae: Any) -> None:
    """He weights, residual blocks that start as the identity, a small output around mid-grey."""
    from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock

    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in vae.modules():
        if isinstance(module, AutoencoderTinyBlock):
            nn.init.zeros_(cast("nn.Conv2d", module.conv[-1]).weight)
    with torch.no_grad():
        vae.encoder.layers[-1].weight.mul_(0.5)
        vae.decoder.layers[-1].weight.mul_(0.1)
        vae.decoder.layers[-1].bias.fill_(0.5)


def reconstruction_loss(made: Tensor, true: Tensor) -> Tensor:
    """L1 + 2 MSE + 0.2 L1 of the picture gradients; pictures [n, 3, H, W] in 0..1."""
    error = made - true
    gradients = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2.0 * error.square().mean() + 0.2 * gradients


def spread_penalty(latents: Tensor) -> Tensor:
    """Distance of each latent channel from zero mean and unit deviation; latents [n, C, h, w].

    It gives the training noise its meaning and keeps the decoder's clamp at ±3 out of the way.
    """
    channels = latents.transpose(0, 1).flatten(1)
    return channels.mean(1).square().mean() + (channels.std(1) - 1.0).square().mean()


def psnr_db(made: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures in 0..1, from the mean of all squared errors."""
    return -10.0 * math.log10((made.clamp(0, 1) - true).square().mean().item())


class FrameBatches:
    """Numbered batches of random crops of rendered frames; each is a pure function of its number."""

    def __init__(self, clips: StickerClips, workers: int = 1) -> None:
        self.clips, self._workers = clips, workers

    def batch(self, number: int, crop_px: int, count: int) -> Tensor:
        """[count, 3, crop_px, crop_px] in 0..1, colours permuted and mirrored at random."""
        random = torch.Generator().manual_seed(number)

        def below(end: int) -> int:
            return int(torch.randint(end, (1,), generator=random))

        side_px = self.clips.size_px
        per_frame = max(1, min(4, (side_px // crop_px) ** 2 // 2))
        crops: list[Tensor] = []
        while len(crops) < count:
            clip = self.clips[number * CLIPS_PER_BATCH + len(crops)]
            frame = clip.draw([below(clip.frame_count)])[0][0].permute(2, 0, 1)
            if below(2):
                frame = frame.flip(-1)
            if below(3) == 0:
                frame = frame[torch.randperm(3, generator=random)]
            for _ in range(min(per_frame, count - len(crops))):
                top, left = below(side_px - crop_px + 1), below(side_px - crop_px + 1)
                crops.append(frame[:, top : top + crop_px, left : left + crop_px])
        return torch.stack(crops)

    def stream(self, first: int, sizes: Iterable[tuple[int, int]]) -> Iterator[Tensor]:
        """Batches from number `first` on, one for each (crop px, count), drawn ahead in threads."""
        waiting: deque[Future[Tensor]] = deque()
        with ThreadPoolExecutor(self._workers) as pool:
            for number, (crop_px, count) in enumerate(sizes, first):
                waiting.append(pool.submit(self.batch, number, crop_px, count))
                if len(waiting) > self._workers:
                    yield waiting.popleft().result()


def held_out_frames(cache: EmojiCache, size_px: int, count: int = 64) -> Tensor:
    """[count, 3, H, W] frames of stickers never trained on, on all kinds of backgrounds."""
    clips = StickerClips(cache, "held_out", size_px, seed=1)
    frames = [clips[number].draw([number % 52])[0][0] for number in range(count)]
    return torch.stack(frames).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def held_out_psnr_db(vae: Any, frames: Tensor) -> float:
    """PSNR of encode → decode without noise."""
    device = next(vae.parameters()).device
    parts = (part.to(device) for part in frames.split(16))
    made = torch.cat([_decode(vae, vae.encoder(part * 2 - 1)).cpu() for part in parts])
    return psnr_db(made, frames)


def _decode(vae: Any, latents: Tensor) -> Tensor:
    return vae.decoder(latents) * 0.5 + 0.5


class VaeTrainer:
    """One phase of training, timed by the clock, resumable from `folder`/state.pt."""

    def __init__(self, cache: EmojiCache, folder: Path, recipe: VaeRecipe) -> None:
        self.recipe, self.folder = recipe, folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(recipe.device)
        self.vae = build_vae(recipe).to(self.device, memory_format=torch.channels_last)
        self.seconds_done = 0.0
        self.step = 0
        self.phase = "joint"
        self._state = folder / "state.pt"
        self._optimiser_state: dict[str, Any] | None = None
        if self._state.is_file():
            self._load()
        clips = StickerClips(cache, "train", recipe.size_px, seed=recipe.seed)
        self.batches = FrameBatches(clips, recipe.workers)
        self.checks = held_out_frames(cache, recipe.size_px)

    def run_joint(self) -> None:
        """Phase 1, then freeze: afterwards `frozen/` holds the VAE whose encoder no longer changes."""
        if self.phase == "joint":
            everything = list(self.vae.parameters())
            self._train(everything, self.recipe.joint_minutes, self.recipe.learning_rate)
            normalise_latents(self.vae, self.batches.batch(self.step, self.recipe.size_px, 256))
            self.phase, self.seconds_done, self._optimiser_state = "decoder", 0.0, None
            self._save({})
        self.export(self.folder / "frozen")

    def run_decoder(self) -> None:
        """Phase 2: the decoder alone, on whole frames, into `final/`."""
        self.vae.encoder.requires_grad_(False)
        decoder = list(self.vae.decoder.parameters())
        self._train(decoder, self.recipe.decoder_minutes, self.recipe.decoder_learning_rate)
        self.export(self.folder / "final")

    def export(self, folder: Path) -> None:
        """Write a diffusers folder, and last of all its held-out PSNR: `QUALITY_FILE` says it is whole."""
        quality = {"held_out_psnr_db": held_out_psnr_db(self.vae, self.checks), "step": self.step}
        self.vae.save_pretrained(folder)
        with atomic_write(folder / QUALITY_FILE) as path:
            path.write_text(json.dumps(quality))

    def _train(self, parameters: list[nn.Parameter], minutes: float, learning_rate: float) -> None:
        betas = (0.9, 0.99)
        optimiser = torch.optim.AdamW(parameters, lr=learning_rate, betas=betas, weight_decay=1e-5)
        if self._optimiser_state:
            optimiser.load_state_dict(self._optimiser_state)
        limit_s, start = minutes * 60.0, time.monotonic() - self.seconds_done
        saved_at_s = logged_at_s = self.seconds_done
        progress = tqdm(total=round(limit_s), unit="s", desc=f"VAE {self.phase}")
        for pictures in self.batches.stream(self.step, self._schedule(limit_s)):
            warm = min(1.0, (self.step + 1) / WARMUP_STEPS)
            fall = 0.5 * (1.0 + math.cos(math.pi * min(1.0, self.seconds_done / limit_s)))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * warm * (0.02 + 0.98 * fall)
            loss = self._step(pictures, optimiser, parameters)
            self.step += 1
            self.seconds_done = time.monotonic() - start
            progress.update(round(self.seconds_done) - progress.n)
            if self.seconds_done - logged_at_s > LOG_EVERY_S:
                logged_at_s = self.seconds_done
                psnr = held_out_psnr_db(self.vae, self.checks)
                tqdm.write(f"step {self.step}: loss {loss:.4f}, held out {psnr:.2f} dB")
            if self.seconds_done - saved_at_s > SAVE_EVERY_S:
                saved_at_s = self.seconds_done
                self._save(optimiser.state_dict())
        progress.close()

    def _step(
        self, pictures: Tensor, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]
    ) -> float:
        pictures = pictures.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            latents = self.vae.encoder(pictures * 2 - 1)
            noisy = latents + self.recipe.latent_noise * torch.randn_like(latents)
            made = _decode(self.vae, noisy).float()
        loss = reconstruction_loss(made, pictures)
        if self.phase == "joint":
            loss = loss + 0.01 * spread_penalty(latents.float())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        return loss.item()

    def _schedule(self, limit_s: float) -> Iterator[tuple[int, int]]:
        while self.seconds_done < limit_s:
            share = self.seconds_done / limit_s if self.phase == "joint" else 1.0
            sizes = self.recipe.crops
            yield next((crop, count) for end, crop, count in sizes if share < end or end == 1.0)

    def _save(self, optimiser_state: dict[str, Any]) -> None:
        state = {
            "vae": self.vae.state_dict(),
            "optimiser": optimiser_state,
            "phase": self.phase,
            "step": self.step,
            "seconds_done": self.seconds_done,
        }
        with atomic_write(self._state) as path:
            torch.save(state, path)

    def _load(self) -> None:
        state = torch.load(self._state, map_location=self.device, weights_only=True)
        self.vae.load_state_dict(state["vae"])
        self._optimiser_state = state["optimiser"]
        self.phase, self.step = state["phase"], state["step"]
        self.seconds_done = state["seconds_done"]


@torch.no_grad()
def normalise_latents(vae: Any, pictures: Tensor) -> None:
    """Fold mean and deviation of the latents of `pictures` [n, 3, H, W] into the encoder's last layer.

    The decoder's first layer gets the inverse; its clamp at ±3 sits before that layer, so this is not exact there, and
    phase 2 trains the rest away.
    """
    device = next(vae.parameters()).device
    latents = torch.cat([vae.encoder(part.to(device) * 2 - 1) for part in pictures.split(16)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    last, first = vae.encoder.layers[-1], vae.decoder.layers[0]
    last.weight.div_(deviation[:, None, None, None])
    last.bias.sub_(mean).div_(deviation)
    first.bias.add_((first.weight * mean[:, None, None]).sum((1, 2, 3)))
    first.weight.mul_(deviation[:, None, None])
