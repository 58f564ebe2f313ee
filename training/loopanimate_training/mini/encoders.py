"""The mini's tokenizer, text encoder and image encoder.

A CLIP pair of 128 numbers per token, trained from scratch to match stickers with their names. That teaches it no
motion words, so the text encoder is trained further with the UNet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from loopanimate_core.encoders.image import encode_image
from loopanimate_core.encoders.tokenizer import END, START, build_tokenizer, byte_symbols

from ..data.stickers.clips import DrawnClips
from ..data.stickers.emoji import EmojiCache
from ..data.stickers.motion import SPEEDS, STRENGTHS, VERBS

VOCABULARY = 2_248
WIDTH = 128
WARMUP_STEPS = 100
MOTION_WORD_WEIGHT = 2_000  # counts per motion word, so that each becomes one token
OTHER_WORDS = (
    "red orange yellow green blue purple pink brown black white grey pastel dark light background "
    "animated sticker a on and with"
)


def learn_vocabulary(texts: Iterable[str], size: int = VOCABULARY) -> dict[str, Any]:
    """CLIP-style byte-pair encoding of `texts` as a bundle's tokenizer entry: `vocab` and `merges`.

    Ids are in CLIP's order: bytes, bytes at the end of a word, merges, start, end.
    """
    words = _word_counts(texts)
    symbols = byte_symbols()
    tokens, merges = symbols + [symbol + "</w>" for symbol in symbols], []
    while len(tokens) < size - 2:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(" ".join(best))
        tokens.append("".join(best))
        words = Counter({_merged(word, best): count for word, count in words.items()})
    tokens += [START, END]
    return {"vocab": {token: index for index, token in enumerate(tokens)}, "merges": merges}


def _word_counts(texts: Iterable[str]) -> Counter[tuple[str, ...]]:
    """How often each word occurs, as a tuple of letters of which the last ends in `</w>`."""
    words: Counter[tuple[str, ...]] = Counter()
    motion = " ".join([*VERBS, *SPEEDS, *STRENGTHS, OTHER_WORDS]).split()
    for word in [
        *(w for text in texts for w in text.lower().split()),
        *motion * MOTION_WORD_WEIGHT,
    ]:
        letters = word.strip(".,:;!?\"'()")
        if letters.isascii() and letters.isalnum():
            words[(*letters[:-1], letters[-1] + "</w>")] += 1
    return words


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    out: list[str] = []
    for symbol in word:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return tuple(out)


def build_encoders(vocabulary: dict[str, Any], seed: int = 0) -> tuple[Any, Any]:
    """A new `CLIPTextModel` (1.1 M parameters) and `CLIPVisionModelWithProjection` (0.8 M)."""
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
    )

    torch.manual_seed(seed)
    count = len(vocabulary["vocab"])
    sizes: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "projection_dim": WIDTH,
    }
    text = CLIPTextConfig(
        vocab_size=count,
        bos_token_id=count - 2,
        eos_token_id=count - 1,
        pad_token_id=count - 1,
        **sizes,
    )
    vision = CLIPVisionConfig(image_size=48, patch_size=8, **sizes)
    return CLIPTextModel(text).eval(), CLIPVisionModelWithProjection(vision).eval()


def train_encoders(
    cache: EmojiCache,
    vocabulary: dict[str, Any],
    *,
    steps: int,
    batch: int = 48,
    learning_rate: float = 1e-3,
    temperature: float = 0.07,
    seed: int = 0,
) -> tuple[Any, Any, dict[str, float]]:
    """Contrastive training for `steps` batches of still stickers with their names and tags.

    Returns:
        The text encoder, the image encoder, and `median_rank` of both.
    """
    tokenizer = build_tokenizer(vocabulary)
    text_encoder, image_encoder = build_encoders(vocabulary, seed)
    parameters = [*text_encoder.parameters(), *image_encoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.1)
    rng, rows = np.random.default_rng(seed), cache.select(held_out=False)
    batch = min(batch, len(rows))
    bar = tqdm(range(steps), desc="text and image encoder")
    for step in bar:
        for group in optimiser.param_groups:
            group["lr"] = (
                learning_rate * min(1.0, (step + 1) / WARMUP_STEPS) * (1.02 - step / steps)
            )
        chosen = rng.choice(rows, batch, replace=False)
        pictures, texts = _stills(cache, chosen, rng), _labels(cache, chosen, rng)
        images = F.normalize(encode_image(image_encoder, pictures, grad=True)[:, 0], dim=-1)
        words = F.normalize(_pooled(tokenizer, text_encoder, texts), dim=-1)
        logits, target = images @ words.T / temperature, torch.arange(batch)
        loss = F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        bar.set_postfix(loss=f"{loss.item():.2f}")
    return text_encoder, image_encoder, median_rank(cache, tokenizer, text_encoder, image_encoder)


@torch.no_grad()
def median_rank(
    cache: EmojiCache, tokenizer: Any, text_encoder: Any, image_encoder: Any
) -> dict[str, float]:
    """Median rank of the right name among all held-out names for a held-out sticker (1 is best), and the rank by
    chance."""
    rows, rng = np.asarray(cache.select(held_out=True)), np.random.default_rng(1)
    images = encode_image(image_encoder, _stills(cache, rows, rng))[:, 0]
    words = _pooled(tokenizer, text_encoder, [cache.emoji[row].name for row in rows])
    scores = F.normalize(images, dim=-1) @ F.normalize(words, dim=-1).T
    ranks = (scores >= scores.diagonal()[:, None]).sum(1).float()
    return {"median_rank": ranks.median().item(), "chance": (len(rows) + 1) / 2}


def _stills(cache: EmojiCache, rows: np.ndarray, rng: np.random.Generator) -> Tensor:
    """Stickers at rest over random backgrounds, `[n, 3, 48, 48]` in 0..1."""
    clips = DrawnClips(cache, "train", 48, 48, seed=int(rng.integers(1 << 30)))
    return torch.stack([clips.still_of(rng, int(row)) for row in rows]).permute(0, 3, 1, 2)


def _labels(cache: EmojiCache, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
    labels = []
    for row in rows:
        emoji = cache.emoji[row]
        tags = rng.permutation(np.asarray(emoji.tags, dtype=object))[: rng.integers(4)]
        labels.append(", ".join([emoji.name, *tags]))
    return labels


def _pooled(tokenizer: Any, text_encoder: Any, texts: list[str]) -> Tensor:
    """State of each text at its end token. Padding comes after it, so it has no influence."""
    tokens = tokenizer.padded(texts, 77)
    ends = (tokens == tokenizer.end).int().argmax(1)
    hidden = text_encoder(tokens[:, : int(ends.max()) + 1]).last_hidden_state
    return hidden[torch.arange(len(texts)), ends]
