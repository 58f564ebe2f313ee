"""The tokenizers, prompts and pictures, with real CLIP classes at toy size."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from loopanimate_core.encoders.text import (
    CLIP_MEAN,
    CLIP_STD,
    END,
    START,
    build_tokenizer,
    byte_symbols,
    clip_vocabulary,
    encode_image,
    encode_prompts,
    vocabulary_of,
)
from loopanimate_core.errors import LoopAnimateError


def small_spec() -> dict[str, Any]:
    """A byte-level vocabulary with three merges: "cat" is one token."""
    symbols = byte_symbols()
    merges = ["c a", "ca t</w>", "o n</w>"]
    tokens = symbols + [s + "</w>" for s in symbols] + [m.replace(" ", "") for m in merges]
    return {"vocab": {t: i for i, t in enumerate([*tokens, START, END])}, "merges": merges}


def text_model(vocabulary: int) -> Any:
    torch.manual_seed(0)
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    ).eval()


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


def test_prompts_are_padded_to_77_and_equal_to_the_plain_call(clip_tokenizer) -> None:
    model = text_model(49_408)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embeds = encode_prompts(clip_tokenizer, model, ["", "a cat"])
    assert embeds.shape == (2, 77, 16) and not embeds.requires_grad
    ids = torch.tensor([[49406, 320, 2368] + [49407] * 74])
    with torch.no_grad():
        torch.testing.assert_close(embeds[1:], model(ids).last_hidden_state)
    assert encode_prompts(clip_tokenizer, model, ["a"], grad=True).requires_grad


def test_a_long_prompt_is_cut_with_a_warning(clip_tokenizer) -> None:
    model = text_model(49_408)
    longest = " ".join(["cat"] * 75)
    with pytest.warns(UserWarning, match=r"400 tokens and only 75 are read; left out: 'cat"):
        embeds = encode_prompts(clip_tokenizer, model, [" ".join(["cat"] * 400)])
    torch.testing.assert_close(embeds, encode_prompts(clip_tokenizer, model, [longest]))


def vision_model() -> Any:
    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
            projection_dim=12,
        )
    ).eval()


def test_image_is_one_projected_token_of_the_whole_picture() -> None:
    model = vision_model()
    picture = torch.rand(2, 3, 40, 64, generator=torch.Generator().manual_seed(2))
    embeds = encode_image(model, picture)
    assert embeds.shape == (2, 1, 12)
    assert not torch.allclose(embeds.norm(dim=-1), torch.ones(2, 1))
    # sd-image-variations resizes in -1..1 and normalises in 0..1
    resized = F.interpolate(picture * 2 - 1, (32, 32), mode="bicubic", align_corners=True) / 2 + 0.5
    normalised = (resized - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(
        3, 1, 1
    )
    with torch.no_grad():
        torch.testing.assert_close(embeds[:, 0], model(normalised).image_embeds)


def test_every_corner_of_the_picture_counts() -> None:
    """Aligned corners, no crop: each corner pixel of the picture is a corner pixel of the encoder's input."""
    model, picture = vision_model(), torch.full((1, 3, 40, 64), 0.5)
    plain = encode_image(model, picture)
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        changed = picture.clone()
        changed[..., row, column] = 1
        assert (encode_image(model, changed) - plain).abs().max() > 1e-5
