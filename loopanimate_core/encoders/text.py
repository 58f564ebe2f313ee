"""Prompts and pictures to embeddings: what the cross-attentions of LoopUNet read (Eq. 12-15).

The tokenizer is CLIP's byte-pair encoding, over CLIP's own vocabulary (packaged) or over a small one that
a bundle carries in its header. transformers is imported only where its classes are built.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import warnings
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LoopAnimateError
from ..files import atomic_write

TOKENIZER_CLIP = (
    "clip"  # the packaged vocabulary; anything else is {"vocab": {...}, "merges": [...]}
)
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


# ------------------------------------------------------------------------------------ tokenizer
def byte_symbols() -> list[str]:
    """The 256 characters that stand for the bytes in byte-level BPE: printable ones for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = sorted(set(range(256)) - set(printable))
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[dict[str, int], list[str]]:
    """CLIP's 49,408 tokens with their ids, and its 48,894 merges as "left right", best first.

    Ids follow from the merges: the bytes, the bytes at a word's end, the merges in order, start, end.
    """
    packaged = resources.files("loopanimate_core") / "data" / "clip_tokenizer" / "merges.txt.gz"
    merges = gzip.decompress(packaged.read_bytes()).decode("utf-8").splitlines()
    symbols = byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    tokens += [merge.replace(" ", "") for merge in merges] + [START, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def vocabulary_of(spec: str | dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """Vocabulary and merges of a bundle's tokenizer entry.

    Args:
        spec: "clip", or {"vocab": {token: id}, "merges": ["left right", ...]}.

    Raises:
        LoopAnimateError: neither of the two, or the vocabulary lacks a token it needs.
    """
    if spec == TOKENIZER_CLIP:
        return clip_vocabulary()
    if not isinstance(spec, dict) or set(spec) != {"vocab", "merges"}:
        raise LoopAnimateError(
            'the tokenizer must be "clip" or an object with exactly "vocab" and "merges"'
        )
    vocab = {str(token): int(index) for token, index in spec["vocab"].items()}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in spec["merges"]]
    if odd := next((pair for pair in merges if len(pair.split(" ")) != 2), None):
        raise LoopAnimateError(
            f"the tokenizer's merge {odd!r} is not two tokens with a space between"
        )
    parts = (part for pair in merges for part in (*pair.split(" "), pair.replace(" ", "")))
    needed = [START, END, *parts]
    if missing := next((token for token in needed if token not in vocab), None):
        raise LoopAnimateError(f"the tokenizer's vocabulary lacks the token {missing!r}")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise LoopAnimateError(f"the tokenizer's ids are not 0 to {len(vocab) - 1}, each once")
    return vocab, merges


def write_tokenizer_files(spec: str | dict[str, Any], folder: str | Path) -> list[Path]:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, the files other programs read."""
    vocab, merges = vocabulary_of(spec)
    settings = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    contents = {
        "vocab.json": json.dumps(vocab, ensure_ascii=False),
        "merges.txt": "\n".join(["#version: 0.2", *merges]) + "\n",
        "tokenizer_config.json": json.dumps(settings, indent=2) + "\n",
    }
    paths = []
    for name, content in contents.items():
        paths.append(Path(folder) / name)
        with atomic_write(paths[-1]) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return paths


def build_tokenizer(spec: str | dict[str, Any]) -> Any:
    """The transformers tokenizer of a bundle's tokenizer entry; `spec` as in `vocabulary_of`."""
    # transformers 5 has one class; in 4 the fast class is the one with equal behaviour.
    from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]

    with tempfile.TemporaryDirectory() as folder:
        write_tokenizer_files(spec, folder)
        return CLIPTokenizerFast.from_pretrained(folder)


# ------------------------------------------------------------------------------------- encoding
def encode_prompts(
    tokenizer: Any, text_encoder: Any, prompts: list[str], *, grad: bool = False
) -> Tensor:
    """Encode prompts to the last hidden states of CLIP's text encoder, padded with the end token.

    Args:
        tokenizer: from `build_tokenizer`.
        text_encoder: transformers `CLIPTextModel`.
        prompts: N prompts; empty ones are fine.
        grad: record gradients, for training the text encoder.

    Returns:
        `[N, 77, D]` in the encoder's type and on its device (77 = the encoder's positions).

    Warns:
        UserWarning: a prompt has more tokens than there are positions; its end is left out.
    """
    length = text_encoder.config.max_position_embeddings
    for prompt, ids in zip(prompts, tokenizer(prompts, verbose=False).input_ids, strict=True):
        if len(ids) > length:
            left_out = tokenizer.decode(ids[length - 1 : -1])
            warnings.warn(
                f"the prompt has {len(ids) - 2} tokens and only {length - 2} are read; "
                f"left out: {_shortened(left_out)!r} of {_shortened(prompt)!r}",
                stacklevel=2,
            )
    tokens = tokenizer(
        prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    )
    with torch.set_grad_enabled(grad):
        return text_encoder(tokens.input_ids.to(text_encoder.device)).last_hidden_state


def encode_image(image_encoder: Any, picture: Tensor, *, grad: bool = False) -> Tensor:
    """Encode pictures to CLIP's projected image embedding, one token each, not normalised.

    The preprocessing is that of sd-image-variations' training: the whole picture is squeezed to the
    encoder's square, bicubic with aligned corners, no antialiasing, no crop.

    Args:
        image_encoder: transformers `CLIPVisionModelWithProjection`.
        picture: `[N, 3, H, W]` in 0..1.
        grad: record gradients.

    Returns:
        `[N, 1, D]` in the encoder's type and on its device.
    """
    side = image_encoder.config.image_size
    with torch.set_grad_enabled(grad):
        x = F.interpolate(picture.float(), (side, side), mode="bicubic", align_corners=True)
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        x = ((x - mean) / std).to(image_encoder.device, image_encoder.dtype)
        return image_encoder(x).image_embeds.unsqueeze(1)


def _shortened(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
