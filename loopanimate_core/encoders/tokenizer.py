"""CLIP's tokenizer: byte-pair encoding over CLIP's own vocabulary or over one that a bundle carries.

CLIP's vocabulary is packaged. The Rust library `tokenizers` does the work, without transformers, which takes
seconds to import.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import LoopAnimateError
from ..files import atomic_write

if TYPE_CHECKING:
    from torch import Tensor

# The bundle entry for the packaged vocabulary; any other entry is {"vocab": {...}, "merges": [...]}.
TOKENIZER_CLIP = "clip"
START, END = "<|startoftext|>", "<|endoftext|>"
# What becomes one word before byte-pair encoding, as in CLIP
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def byte_symbols() -> list[str]:
    """The 256 characters of byte-level BPE, one per byte; a printable byte is its own character."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = sorted(set(range(256)) - set(printable))
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(rest))]


@lru_cache(maxsize=1)
def clip_vocabulary() -> tuple[dict[str, int], list[str]]:
    """CLIP's 49,408 tokens with their ids, and its 48,894 merges as "left right", best first.

    The ids follow this order: the bytes, the bytes at the end of a word, the merges, start, end.
    """
    packaged = resources.files("loopanimate_core") / "data" / "clip_tokenizer" / "merges.txt.gz"
    merges = gzip.decompress(packaged.read_bytes()).decode("utf-8").splitlines()
    symbols = byte_symbols()
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    tokens += [merge.replace(" ", "") for merge in merges] + [START, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def vocabulary_of(spec: str | dict[str, Any]) -> tuple[dict[str, int], list[str]]:
    """The vocabulary and the merges of a bundle's tokenizer entry.

    Args:
        spec: "clip", or {"vocab": {token: id}, "merges": ["left right", ...]}.

    Raises:
        LoopAnimateError: `spec` has another form, or the vocabulary lacks a token that it needs.
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
            f"the tokenizer's merge {odd!r} is not two tokens separated by a space"
        )
    parts = (part for pair in merges for part in (*pair.split(" "), pair.replace(" ", "")))
    needed = [START, END, *parts]
    if missing := next((token for token in needed if token not in vocab), None):
        raise LoopAnimateError(f"the tokenizer's vocabulary lacks the token {missing!r}")
    if sorted(vocab.values()) != list(range(len(vocab))):
        raise LoopAnimateError(f"the tokenizer's ids are not 0 to {len(vocab) - 1}, each once")
    return vocab, merges


def write_tokenizer_files(spec: str | dict[str, Any], folder: str | Path) -> list[Path]:
    """Write `vocab.json`, `merges.txt` and `tokenizer_config.json`, and return their paths."""
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


class Tokenizer:
    """Texts to token ids and back; the ids are those of transformers' `CLIPTokenizer`. Safe in threads.

    Args:
        vocab: the id of every token.
        merges: "left right", best first.

    Attributes:
        end: the id of the end token, which also pads.
    """

    def __init__(self, vocab: dict[str, int], merges: Sequence[str]) -> None:
        from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors
        from tokenizers import Tokenizer as Rust
        from tokenizers.decoders import ByteLevel
        from tokenizers.models import BPE

        pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
        self.end = vocab[END]
        self._rust: Any = Rust(BPE(vocab, pairs, end_of_word_suffix="</w>", unk_token=END))
        self._rust.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        self._rust.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        self._rust.post_processor = processors.RobertaProcessing(
            (END, self.end), (START, vocab[START]), trim_offsets=False, add_prefix_space=False
        )
        self._rust.decoder = ByteLevel()
        special = [AddedToken(token, normalized=False, special=True) for token in (START, END)]
        self._rust.add_special_tokens(special)

    def ids(self, text: str) -> list[int]:
        """The ids of a text, between the start token and the end token."""
        return self._rust.encode(text).ids

    def padded(self, texts: Sequence[str], length: int) -> Tensor:
        """`[N, length]`: the ids of N texts, cut before a last end token, or padded with end tokens."""
        import torch

        rows = []
        for ids in map(self.ids, texts):
            kept = ids if len(ids) <= length else [*ids[: length - 1], self.end]
            rows.append(kept + [self.end] * (length - len(kept)))
        return torch.tensor(rows)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, in lower case, without start and end tokens."""
        return self._rust.decode(list(ids), skip_special_tokens=True).replace("</w>", " ").strip()


def build_tokenizer(spec: str | dict[str, Any]) -> Tokenizer:
    """The tokenizer of a bundle's tokenizer entry; `spec` and errors as in `vocabulary_of`."""
    return Tokenizer(*vocabulary_of(spec))
