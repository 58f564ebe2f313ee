"""CLIP's tokenizer, with its own vocabulary and with a small one."""

from __future__ import annotations

from typing import Any

import pytest

from loopanimate_core.encoders.tokenizer import (
    END,
    START,
    build_tokenizer,
    byte_symbols,
    clip_vocabulary,
    vocabulary_of,
)
from loopanimate_core.errors import LoopAnimateError


def small_spec() -> dict[str, Any]:
    """A byte-level vocabulary with three merges: "cat" is one token."""
    symbols = byte_symbols()
    merges = ["c a", "ca t</w>", "o n</w>"]
    tokens = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges]
    return {"vocab": {t: i for i, t in enumerate([*tokens, START, END])}, "merges": merges}


@pytest.fixture(scope="module")
def clip_tokenizer() -> Any:
    return build_tokenizer("clip")


def test_clip_vocabulary_is_the_published_one(clip_tokenizer) -> None:
    vocabulary, merges = clip_vocabulary()
    assert len(vocabulary) == 49_408 and len(merges) == 48_894
    assert vocabulary[START] == 49_406 and vocabulary[END] == 49_407
    # The ids that CLIP and every Stable Diffusion 1.x gives this prompt.
    assert clip_tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.parametrize(
    "prompt", ["", "Ünïcode ☃ 🐈 cat's  two\nlines", "123 a.b,c! <|endoftext|>"]
)
def test_every_text_round_trips_as_clip_prints_it(clip_tokenizer, prompt) -> None:
    ids = clip_tokenizer(prompt).input_ids
    assert ids[0] == 49_406 and ids[-1] == 49_407
    plain = "".join(clip_tokenizer.decode(ids, skip_special_tokens=True).split())
    assert plain == "".join(prompt.lower().replace(END, "").split())


def test_small_vocabulary_travels_inline() -> None:
    spec = small_spec()
    tokenizer = build_tokenizer(spec)
    end = spec["vocab"][END]
    assert tokenizer("cat on").input_ids == [end - 1, end - 3, end - 2, end]
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
