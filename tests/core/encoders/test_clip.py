"""Our CLIP encoders compared with transformers'."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from loopanimate_core.bundle.components import (
    build_on_meta,
    classic_names,
    image_encoder_settings,
    text_encoder_settings,
)
from loopanimate_core.encoders.clip import ImageEncoder, TextEncoder
from loopanimate_core.errors import LoopAnimateError

pytestmark = pytest.mark.numeric

SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "projection_dim": 16,
}
# The real layouts: Stable Diffusion 1.5's text encoder, and the image encoder of sd-image-variations.
SD15: dict[str, Any] = {
    "vocab_size": 49_408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
VARIATIONS: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
    "projection_dim": 768,
}


def randomised(model: Any) -> Any:
    """Biases and norms at random too: they start as zeros and ones, which would hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_text_equal_to_transformers(activation: str) -> None:
    torch.manual_seed(0)
    config = CLIPTextConfig(vocab_size=100, hidden_act=activation, **SIZES)
    theirs = randomised(CLIPTextModel(config))
    ours = TextEncoder(text_encoder_settings(config))
    ours.load_state_dict(unprefixed(theirs))
    for length in (77, 9):
        ids = torch.randint(0, 100, (2, length))
        with torch.inference_mode():
            assert_close(ours(ids).last_hidden_state, theirs(ids).last_hidden_state, depth=NETWORK)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_image_equal_to_transformers(activation: str) -> None:
    torch.manual_seed(0)
    config = CLIPVisionConfig(image_size=32, patch_size=8, hidden_act=activation, **SIZES)
    theirs = randomised(CLIPVisionModelWithProjection(config))
    ours = ImageEncoder(image_encoder_settings(config))
    ours.load_state_dict(theirs.state_dict())
    pictures = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert_close(ours(pictures).image_embeds, theirs(pictures).image_embeds, depth=NETWORK)


def test_real_layouts_have_the_same_tensors() -> None:
    with torch.device("meta"):
        text = CLIPTextModel(CLIPTextConfig(**SD15))
        image = CLIPVisionModelWithProjection(CLIPVisionConfig(**VARIATIONS))
    ours = build_on_meta("text_encoder", text_encoder_settings(text.config))
    assert shapes(ours.state_dict()) == shapes(unprefixed(text))
    ours = build_on_meta("image_encoder", image_encoder_settings(image.config))
    assert shapes(ours.state_dict()) == shapes(image.state_dict())


def test_what_a_config_leaves_out_is_as_in_transformers() -> None:
    for ours, theirs in (
        (build_on_meta("text_encoder", {}), CLIPTextConfig()),
        (build_on_meta("image_encoder", {}), CLIPVisionConfig()),
    ):
        config: Any = ours.config
        assert {name: getattr(theirs, name) for name in config} == dict(config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 5}, "hidden_size must be a multiple of .* 24 and 5"),
        ({"hidden_act": "sine"}, "hidden_act must be one of quick_gelu, .* got 'sine'"),
    ],
)
def test_unsupported_settings_raise_one_sentence(change: dict[str, Any], message: str) -> None:
    for part in ("text_encoder", "image_encoder"):
        with pytest.raises(LoopAnimateError, match=f"the settings of the {part} .*{message}"):
            build_on_meta(part, {**SIZES, **change})


def shapes(state: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def unprefixed(text: Any) -> dict[str, Any]:
    """The tensors of transformers 4 or 5 by the names of transformers 5."""
    return {
        new.removeprefix("text_model."): text.state_dict()[old]
        for old, new in classic_names("text_encoder", text.state_dict()).items()
    }
