"""Pictures through the real CLIP image encoder at toy size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from closeness import NETWORK, assert_close
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from loopanimate_core.encoders.image import CLIP_MEAN, CLIP_STD, encode_image

pytestmark = pytest.mark.numeric


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
        assert_close(embeds[:, 0], model(normalised).image_embeds, depth=NETWORK)


def test_every_corner_of_the_picture_counts() -> None:
    """Aligned corners and no crop: each corner pixel of the picture reaches the encoder."""
    model, picture = vision_model(), torch.full((1, 3, 40, 64), 0.5)
    plain = encode_image(model, picture)
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        changed = picture.clone()
        changed[..., row, column] = 1
        assert (encode_image(model, changed) - plain).abs().max() > 1e-5
