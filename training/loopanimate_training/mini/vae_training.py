"""Training the mini's VAE from scratch, in two phases that end after a given number of steps.

Phase 1 trains encoder and decoder together. Then the encoder is frozen, with latents of zero mean and unit variance
(so the scaling factor is 1), and the UNet can be trained. Phase 2 trains the decoder alone, which does not change the
latents.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from loopanimate_core.files import atomic_write

from ..data.photographs.cutouts import CutoutCache
from ..data.stickers.clips import DrawnClips
from ..data.stickers.emoji import EmojiCache
from ..rng import torch_rng
from .vae import (
    CropPhase,
    VaeRecipe,
    build_vae,
    decode,
    encode,
    normalise_latents,
    reconstruction_loss,
    reconstruction_psnr_db,
    schedule,
    spread_penalty,
)

WARMUP_STEPS = 100
LOG_EVERY_STEPS, SAVE_EVERY_STEPS = 400, 1_600
CLIPS_PER_BATCH = 512  # clip numbers reserved for one batch
NORMALISING_BATCH = 256
QUALITY_FILE = "quality.json"


class FrameBatches:
    """Numbered batches of random crops of drawn frames; each is a pure function of its number."""

    def __init__(self, clips: DrawnClips, workers: int = 1) -> None:
        self.clips, self._workers = clips, workers

    def batch(self, number: int, crop_px: int, count: int) -> Tensor:
        """[count, 3, crop_px, crop_px] in 0..1, with colour channels permuted and mirrored at random."""
        random = torch.Generator().manual_seed(number)

        def below(end: int) -> int:
            return int(torch.randint(end, (1,), generator=random))

        side_px = self.clips.height_px
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
            while waiting:
                yield waiting.popleft().result()


def held_out_frames(
    cache: EmojiCache, size_px: int, cutouts: CutoutCache | None = None, count: int = 64
) -> Tensor:
    """[count, 3, H, W] frames of held-out stickers and photographs, on all kinds of backgrounds."""
    clips = DrawnClips(cache, "held_out", size_px, size_px, seed=1, cutouts=cutouts)
    frames = [clips[number].draw([number % 52])[0][0] for number in range(count)]
    return torch.stack(frames).permute(0, 3, 1, 2).contiguous()


class VaeTrainer:
    """Both phases; a stopped one continues from `folder`/state.pt."""

    def __init__(
        self,
        cache: EmojiCache,
        folder: Path,
        recipe: VaeRecipe,
        cutouts: CutoutCache | None = None,
    ) -> None:
        self.recipe, self.folder = recipe, folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(recipe.device)
        self.vae = build_vae(recipe).to(self.device, memory_format=torch.channels_last)
        self.step = 0  # of both phases
        self.phase: Literal["joint", "decoder"] = "joint"
        self._state = folder / "state.pt"
        self._optimiser_state: dict[str, Any] | None = None
        if self._state.is_file():
            self._load()
        side_px = recipe.size_px
        clips = DrawnClips(cache, "train", side_px, side_px, seed=recipe.seed, cutouts=cutouts)
        self.batches = FrameBatches(clips, recipe.workers)
        self.checks = held_out_frames(cache, recipe.size_px, cutouts)

    def run_joint(self) -> None:
        """Phase 1; afterwards `frozen/` holds the VAE, whose encoder does not change any more."""
        if self.phase == "joint":
            everything = list(self.vae.parameters())
            self._train(everything, self.recipe.joint, self.step, self.recipe.learning_rate)
            pictures = self.batches.batch(self.step, self.recipe.size_px, NORMALISING_BATCH)
            normalise_latents(self.vae, pictures)
            self.phase, self._optimiser_state = "decoder", None
            self._save({})
        self.export(self.folder / "frozen")

    def run_decoder(self) -> None:
        """Phase 2: the decoder alone, on whole frames, into `final/`."""
        self.vae.encoder.requires_grad_(False)
        decoder = list(self.vae.decoder.parameters())
        first = max(0, self.step - self.recipe.joint_steps)
        self._train(decoder, (self.recipe.decoder,), first, self.recipe.decoder_learning_rate)
        self.export(self.folder / "final")

    def export(self, folder: Path) -> None:
        """Write a diffusers folder, and at the end `QUALITY_FILE` with the held-out PSNR: a folder with this file
        is complete."""
        psnr_db = reconstruction_psnr_db(self.vae, self.checks)
        self.vae.save_pretrained(folder)
        with atomic_write(folder / QUALITY_FILE) as path:
            path.write_text(json.dumps({"held_out_psnr_db": psnr_db, "step": self.step}))

    def _train(
        self,
        parameters: list[nn.Parameter],
        phases: tuple[CropPhase, ...],
        first: int,
        learning_rate: float,
    ) -> None:
        """Take the steps of `phases` from number `first` on. The learning rate falls by a cosine over the pixels
        seen, so that phases of large crops get their share of it."""
        optimiser = torch.optim.AdamW(
            parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-5
        )
        if self._optimiser_state:
            optimiser.load_state_dict(self._optimiser_state)
        steps = list(schedule(phases, first))
        batches = self.batches.stream(self.step, ((crop_px, count) for _, crop_px, count in steps))
        bar = tqdm(zip(steps, batches, strict=True), total=len(steps), desc=f"VAE {self.phase}")
        for (progress, _, _), pictures in bar:
            warm = min(1.0, (self.step + 1) / WARMUP_STEPS)
            fall = 0.5 * (1.0 + math.cos(math.pi * progress))
            for group in optimiser.param_groups:
                group["lr"] = learning_rate * warm * (0.02 + 0.98 * fall)
            loss = self._step(pictures, optimiser, parameters)
            self.step += 1
            if self.step % LOG_EVERY_STEPS == 0:
                psnr_db = reconstruction_psnr_db(self.vae, self.checks)
                tqdm.write(f"step {self.step}: loss {loss:.4f}, held out {psnr_db:.2f} dB")
            if self.step % SAVE_EVERY_STEPS == 0:
                self._save(optimiser.state_dict())

    def _step(
        self, pictures: Tensor, optimiser: torch.optim.Optimizer, parameters: list[nn.Parameter]
    ) -> float:
        pictures = pictures.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16):
            latents = encode(self.vae, pictures)
            # A function of the step, so that a resumed training is the same.
            random = torch_rng(self.recipe.seed, "vae noise", self.step)
            noise = torch.randn(latents.shape, generator=random).to(latents)
            made = decode(self.vae, latents + self.recipe.latent_noise * noise).float()
        loss = reconstruction_loss(made, pictures)
        if self.phase == "joint":
            loss = loss + 0.01 * spread_penalty(latents.float())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        return loss.item()

    def _save(self, optimiser_state: dict[str, Any]) -> None:
        state = {
            "vae": self.vae.state_dict(),
            "optimiser": optimiser_state,
            "phase": self.phase,
            "step": self.step,
        }
        with atomic_write(self._state) as path:
            torch.save(state, path)

    def _load(self) -> None:
        state = torch.load(self._state, map_location=self.device, weights_only=True)
        self.vae.load_state_dict(state["vae"])
        self._optimiser_state = state["optimiser"]
        self.phase, self.step = state["phase"], state["step"]
