"""Prompts to embeddings: what the text cross-attentions of LoopUNet read (Eq. 12-15)."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from ..travel import parse_travel
from .tokenizer import Tokenizer


def encode_prompts(
    tokenizer: Tokenizer, text_encoder: Any, prompts: list[str], *, grad: bool = False
) -> Tensor:
    """Encode prompts to the last hidden states of CLIP's text encoder, padded with the end token.

    Args:
        tokenizer: from `build_tokenizer`.
        text_encoder: a `TextEncoder`, or transformers' `CLIPTextModel`.
        prompts: N prompts, which may be empty.
        grad: record gradients, for training the text encoder.

    Returns:
        `[N, 77, D]` in the encoder's dtype and on its device (77: the encoder's number of positions).

    Warns:
        UserWarning: a prompt has more tokens than the encoder has positions; its end is ignored.
    """
    length = text_encoder.config.max_position_embeddings
    for prompt in prompts:
        ids = tokenizer.ids(prompt)
        if len(ids) > length:
            ignored = tokenizer.decode(ids[length - 1 : -1])
            warnings.warn(
                f"the prompt has {len(ids) - 2} tokens, but the model reads only {length - 2}; "
                f"ignored: {_shortened(ignored)!r} of {_shortened(prompt)!r}",
                stacklevel=2,
            )
    tokens = tokenizer.padded(prompts, length).to(next(text_encoder.parameters()).device)
    with torch.set_grad_enabled(grad):
        return text_encoder(tokens).last_hidden_state


def encode_around(
    tokenizer: Any, text_encoder: Any, prompts: list[str], frames: int
) -> list[Tensor]:
    """Encode prompts for a loop of P = `frames` frames that play; `0: bobbing, 12: swaying` is one prompt.

    Returns:
        For each prompt `[1, T, D]`, or `[1, P, T, D]` if it travels: at each frame the weighted mean of its texts.

    Raises:
        LoopAnimateError: keys that are wrong, or not in the loop.
    """
    travels = [parse_travel(prompt) for prompt in prompts]
    texts = [
        [prompt] if travel is None else list(travel.texts)
        for prompt, travel in zip(prompts, travels, strict=True)
    ]
    encoded = encode_prompts(tokenizer, text_encoder, [text for of_one in texts for text in of_one])
    keys = encoded.split([len(of_one) for of_one in texts])
    return [
        found if travel is None else mixed(found, travel.weights(frames))
        for found, travel in zip(keys, travels, strict=True)
    ]


def mixed(keys: Tensor, weights: list[list[float]]) -> Tensor:
    """Embeddings of each frame `[1, P, L, D]`, from those of the keys `[K, L, D]` and weights `[P][K]`."""
    return torch.einsum("pk,kld->pld", torch.tensor(weights).to(keys), keys)[None]


def _shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
