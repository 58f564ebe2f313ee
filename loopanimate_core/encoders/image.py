"""Pictures to CLIP image embeddings: what the image cross-attentions of LoopUNet read (Eq. 12-15)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def resize_for_clip(pictures: Tensor, side_px: int) -> Tensor:
    """Resize pictures `[N, 3, H, W]` in 0..1 to the encoder's square, `[N, 3, side_px, side_px]`.

    As sd-image-variations was trained: the whole picture is squeezed into the square (no crop), bicubic
    with aligned corners, without antialiasing. Bicubic may overshoot 0..1 a little.
    """
    size = (side_px, side_px)
    return F.interpolate(pictures.float(), size, mode="bicubic", align_corners=True)


def encode_image(image_encoder: Any, pictures: Tensor, *, grad: bool = False) -> Tensor:
    """Encode pictures to CLIP's projected image embedding, one token each, not normalised.

    Args:
        image_encoder: an `ImageEncoder`, or transformers' `CLIPVisionModelWithProjection`.
        pictures: `[N, 3, H, W]` in 0..1.
        grad: record gradients.

    Returns:
        `[N, 1, D]` in the encoder's dtype and on its device.
    """
    with torch.set_grad_enabled(grad):
        x = resize_for_clip(pictures, image_encoder.config.image_size)
        mean, std = (x.new_tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
        x = ((x - mean) / std).to(next(image_encoder.parameters()))
        return image_encoder(x).image_embeds.unsqueeze(1)
