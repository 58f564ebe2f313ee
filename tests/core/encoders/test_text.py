"""Prompts through the real CLIP text encoder at toy size."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close
from transformers import CLIPTextConfig, CLIPTextModel

from loopanimate_core.encoders.text import encode_prompts
from loopanimate_core.encoders.tokenizer import build_tokenizer

pytestmark = pytest.mark.numeric


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


def test_prompts_are_padded_to_77_and_equal_to_the_plain_call(clip_tokenizer) -> None:
    model = text_model(49_408)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embeds = encode_prompts(clip_tokenizer, model, ["", "a cat"])
    assert embeds.shape == (2, 77, 16) and not embeds.requires_grad
    ids = torch.tensor([[49406, 320, 2368] + [49407] * 74])
    with torch.no_grad():
        assert_close(embeds[1:], model(ids).last_hidden_state, depth=NETWORK)
    assert encode_prompts(clip_tokenizer, model, ["a"], grad=True).requires_grad


def test_a_long_prompt_is_cut_with_a_warning(clip_tokenizer) -> None:
    model = text_model(49_408)
    longest = " ".join(["cat"] * 75)
    with pytest.warns(UserWarning, match=r"400 tokens, but the model reads only 75; ignored: 'cat"):
        embeds = encode_prompts(clip_tokenizer, model, [" ".join(["cat"] * 400)])
    assert_close(embeds, encode_prompts(clip_tokenizer, model, [longest]), depth=NETWORK)
