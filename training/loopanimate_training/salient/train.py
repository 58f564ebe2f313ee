"""Train the salient-object network on composites, then on composites and labelled photographs."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import trange

from loopanimate_core.files import atomic_write

from .examples import Examples, Material
from .model import SalientNet

BATCH = 16
LEARNING_RATE, WEIGHT_DECAY, WARMUP_STEPS = 3e-3, 1e-3, 60
EMA_DECAY = 0.99
COARSE_WEIGHT = 0.3
SEED = 0
CHECKPOINT_STEPS = 100


@dataclass(frozen=True)
class Stage:
    """So many optimiser steps at one size; `labelled` is the share of labelled photographs.

    Half as many again are composites of objects cut out of labelled photographs; the rest are
    composites of stickers and cut-outs.
    """

    steps: int
    size_px: int
    labelled: float


# The learning rate starts again with every cycle (Loshchilov and Hutter 2017).
CYCLES = (
    (Stage(600, 128, 0.0), Stage(2400, 128, 0.4), Stage(1000, 192, 0.4)),
    (Stage(2400, 128, 0.45), Stage(700, 192, 0.45)),
)


def train(
    material: Material, checkpoint: Path, cycles: Sequence[Sequence[Stage]] = CYCLES
) -> SalientNet:
    """Run all cycles and return the averaged network; a checkpoint resumes after its last saved step.

    Each step draws its examples from a generator seeded with the step's number.
    """
    torch.manual_seed(SEED)
    network = SalientNet().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = copy.deepcopy(network).eval()
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    start = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    plan = [
        (stage, factor)
        for stages in cycles
        for stage, factor in zip(_repeated(stages), learning_rate_factors(stages), strict=True)
    ]
    examples = {size: Examples(material, size) for size in {stage.size_px for stage, _ in plan}}
    network.train()
    losses: list[float] = []
    for step in (progress := trange(start, len(plan), initial=start, total=len(plan))):
        stage, factor = plan[step]
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * factor
        pictures, masks = batch_of(examples[stage.size_px], stage, step)
        fine, coarse = network(pictures)
        loss = training_loss(fine, coarse, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        _update_average(average, network, step)
        losses.append(float(loss.detach()))
        progress.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}", refresh=False)
        if (step + 1) % CHECKPOINT_STEPS == 0 or step + 1 == len(plan):
            _save(checkpoint, network, average, optimizer, step + 1)
    return average


def _repeated(stages: Sequence[Stage]) -> list[Stage]:
    """The stage of every step of a cycle."""
    return [stage for stage in stages for _ in range(stage.steps)]


def learning_rate_factors(stages: Sequence[Stage]) -> list[float]:
    """For every step of a cycle: a linear warm-up, then a half cosine to 1 % of the rate."""
    steps = sum(stage.steps for stage in stages)
    return [
        min(1.0, (step + 1) / WARMUP_STEPS)
        * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for step in range(steps)
    ]


def batch_of(examples: Examples, stage: Stage, step: int) -> tuple[Tensor, Tensor]:
    """Pictures `[N, 3, S, S]` in channels-last memory and masks `[N, 1, S, S]` of one step."""
    random = np.random.default_rng((SEED, step))
    pairs = []
    for _ in range(BATCH):
        kind = random.random()
        if kind < stage.labelled:
            pairs.append(examples.labelled(random))
        elif kind < 1.5 * stage.labelled:
            pairs.append(examples.composite(random, "labelled"))
        else:
            pairs.append(
                examples.composite(random, "stickers" if random.random() < 0.5 else "cutouts")
            )
    pictures = torch.from_numpy(np.stack([picture for picture, _ in pairs])).permute(0, 3, 1, 2)
    return pictures, torch.from_numpy(np.stack([mask for _, mask in pairs]))[:, None]


def training_loss(logits: Tensor, coarse: Tensor, masks: Tensor) -> Tensor:
    """Cross entropy and soft IoU at full size, and a share of both at a quarter of the size."""
    small = F.avg_pool2d(masks, masks.shape[-1] // coarse.shape[-1])
    return _mask_loss(logits, masks) + COARSE_WEIGHT * _mask_loss(coarse, small)


def _mask_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Binary cross entropy plus 1 - intersection over union of the probabilities, per picture."""
    scores = logits.sigmoid()
    both = (scores * masks).sum((1, 2, 3))
    either = (scores + masks - scores * masks).sum((1, 2, 3))
    iou = (both + 1) / (either + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + (1 - iou).mean()


@torch.no_grad()
def _update_average(average: SalientNet, network: SalientNet, step: int) -> None:
    decay = min(EMA_DECAY, (step + 1) / (step + 10))
    for mean, value in zip(
        average.state_dict().values(), network.state_dict().values(), strict=True
    ):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - decay)
        else:
            mean.copy_(value)


def _save(
    path: Path,
    network: SalientNet,
    average: SalientNet,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        torch.save(
            {
                "network": network.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
            },
            partial,
        )
