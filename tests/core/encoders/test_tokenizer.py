"""CLIP's tokenizer, with its own vocabulary and with a small one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer

from loopanimate_core.encoders.tokenizer import (
    END,
    START,
    Tokenizer,
    build_tokenizer,
    byte_symbols,
    clip_vocabulary,
    vocabulary_of,
    write_tokenizer_files,
)
from loopanimate_core.errors import LoopAnimateError


def small_spec() -> dict[str, Any]:
    """A byte-level vocabulary with three merges: "cat" is one token."""
    symbols = byte_symbols()
    merges = ["c a", "ca t</w>", "o n</w>"]
    tokens = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges]
    return {"vocab": {t: i for i, t in enumerate([*tokens, START, END])}, "merges": merges}


@pytest.fixture(scope="module")
def clip_tokenizer() -> Tokenizer:
    return build_tokenizer("clip")


def test_clip_vocabulary_is_the_published_one(clip_tokenizer) -> None:
    vocabulary, merges = clip_vocabulary()
    assert len(vocabulary) == 49_408 and len(merges) == 48_894
    assert vocabulary[START] == 49_406 and vocabulary[END] == 49_407
    # The ids that CLIP and every Stable Diffusion 1.x gives this prompt.
    assert clip_tokenizer.ids("a photo of a cat") == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.parametrize(
    "prompt", ["", "Ünïcode ☃ 🐈 cat's  two\nlines", "123 a.b,c! <|endoftext|>"]
)
def test_decode_returns_the_normalised_prompt(clip_tokenizer, prompt) -> None:
    ids = clip_tokenizer.ids(prompt)
    assert ids[0] == 49_406 and ids[-1] == 49_407
    plain = "".join(clip_tokenizer.decode(ids).split())
    assert plain == "".join(prompt.lower().replace(END, "").split())


TEXTS = [
    "",
    "A cat's  two\nlines, they're 100% DONE!",
    "Ünïcode e\u0301 ☃ 🐈 日本 …",
    "one <|endoftext|> two <|STARTOFTEXT|> <|endoftext|",
    "ﬁ ǅ İstanbul\u00a0\u3000\ttab",
    " ".join(["a long prompt"] * 40),
]


@pytest.mark.parametrize("small", [False, True])
def test_equal_to_transformers(small: bool, clip_tokenizer: Tokenizer, tmp_path: Path) -> None:
    ours = build_tokenizer(small_spec()) if small else clip_tokenizer
    write_tokenizer_files(small_spec() if small else "clip", tmp_path)
    theirs: Any = CLIPTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        ids = theirs(text).input_ids
        assert ours.ids(text) == ids
        assert ours.decode(ids[1:-1]) == theirs.decode(ids[1:-1], skip_special_tokens=True)
    padded = theirs(
        TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    assert torch.equal(ours.padded(TEXTS, 77), padded.input_ids)


def test_small_vocabulary_is_stored_inline() -> None:
    spec = small_spec()
    tokenizer = build_tokenizer(spec)
    end = spec["vocab"][END]
    assert tokenizer.ids("cat on") == [end - 1, end - 3, end - 2, end]
    pairs = {"vocab": spec["vocab"], "merges": [m.split(" ") for m in spec["merges"]]}
    assert vocabulary_of(pairs) == vocabulary_of(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: "t5", "must be"),
        (lambda s: {"vocab": s["vocab"]}, "must be"),
        (lambda s: {**s, "merges": [*s["merges"], "x y"]}, "lacks the token 'xy'"),
        (lambda s: {**s, "merges": ["x"]}, "merge 'x' is not two tokens"),
        (lambda s: {**s, "vocab": {**s["vocab"], "new": 9_999}}, "ids are not"),
    ],
)
def test_wrong_tokenizers(change, message) -> None:
    with pytest.raises(LoopAnimateError, match=message):
        build_tokenizer(change(small_spec()))
