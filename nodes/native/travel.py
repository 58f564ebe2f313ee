"""Prompt travel as ComfyUI has it: a CONDITIONING that holds the texts of all keys, and what the network reads of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import comfy.conds
import torch
from torch import Tensor

from loopanimate_core.encoders.text import mixed
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.travel import PromptTravel, parse_travel

TRAVEL_KEY = "loop_travel"
"""In a prompt: a TravelTexts."""


@dataclass(frozen=True)
class TravelTexts:
    """The texts of a prompt that travels.

    Attributes:
        travel: their frames.
        keys: their embeddings, `[K, T, D]`.
        first: the embedding `[1, T, D]` that other nodes see as the prompt's own.
    """

    travel: PromptTravel
    keys: Tensor
    first: Tensor

    def of_frames(self, frames: int) -> Tensor:
        """The text of each of P = `frames` frames that play, `[P, T, D]`."""
        return mixed(self.keys, self.travel.weights(frames))[0]


class CondTravel(comfy.conds.CONDRegular):
    """Texts `[P, T, D]`, or None for a prompt that does not travel; joined to a list with one of each branch."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> CondTravel:
        return self._copy_with(self.cond)

    def can_concat(self, other: CondTravel) -> bool:
        return True

    def concat(self, others: Sequence[CondTravel]) -> list[Tensor | None]:
        return [self.cond, *(other.cond for other in others)]

    def size(self) -> list[int]:
        return [1]


def encode_travel(clip: Any, prompt: str) -> list[Any]:
    """A CONDITIONING of `0: a fox bobbing, 12: a fox swaying`, or of a plain prompt.

    Raises:
        LoopAnimateError: keys that are wrong.
    """
    travel = parse_travel(prompt)
    texts = [prompt] if travel is None else travel.texts
    encoded = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in texts]
    if travel is None:
        return encoded[0]
    prompts = []
    for entries in zip(
        *encoded, strict=True
    ):  # more than one only if the text encoder changes over the steps
        keys = torch.cat(_of_one_length([entry[0] for entry in entries]))
        first, options = entries[0]
        prompts.append([first, {**options, TRAVEL_KEY: TravelTexts(travel, keys, first)}])
    return prompts


def check_travel(prompts: Sequence[Any], frames: int) -> None:
    """Raises LoopAnimateError for a CONDITIONING with keys that a loop of F = `frames` frames does not have."""
    for _, options in prompts:
        if (texts := options.get(TRAVEL_KEY)) is not None:
            texts.travel.weights(max(1, frames - 1))


def texts_of(prompt: Mapping[str, Any], frames: int) -> Tensor | None:
    """The text `[P, T, D]` of each frame that plays, of a prompt as a sampler has it; None for a plain one.

    Args:
        frames: F.

    Raises:
        LoopAnimateError: another node has changed the prompt's embedding, which would be lost.
    """
    texts: TravelTexts | None = prompt.get(TRAVEL_KEY)
    if texts is None:
        return None
    seen = prompt["cross_attn"]
    if seen.shape != texts.first.shape or not torch.equal(seen.cpu(), texts.first.cpu()):
        raise LoopAnimateError(
            "a node has changed the text of Prompt Travel (Conditioning Average, Concat and the like), of which a loop"
            " would show nothing; bypass it"
        )
    return texts.of_frames(max(1, frames - 1))


def read_by_frames(
    context: Tensor, travels: Sequence[Tensor | None] | None, frames: Tensor
) -> Tensor:
    """What cross-attention reads: `context [B, T, D]`, or `[B, L, T', D]` if a branch travels.

    Args:
        travels: of each branch `[P, T, D]`, or None for its row of `context`.
        frames: the indices `[L]` of the window's frames on the ring.
    """
    known = [travel for travel in travels or () if travel is not None]
    if not travels or not known:
        return context
    ring = frames % len(known[0])  # with nothing tied, the last frame is the first one again
    rows = [
        own.expand(len(ring), -1, -1) if travel is None else travel.to(context)[ring]
        for own, travel in zip(context.split(1), travels, strict=True)
    ]
    return torch.stack(_of_one_length(rows))


def _of_one_length(texts: Sequence[Tensor]) -> list[Tensor]:
    """Texts `[…, T, D]`, repeated to a common number of tokens, which changes nothing that is read from them."""
    length = math.lcm(*(text.shape[-2] for text in texts))
    return [text.repeat(1, length // text.shape[-2], 1) for text in texts]
