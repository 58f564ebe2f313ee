"""Previews of the loop while it is sampled, sent to the page that started the run."""

from __future__ import annotations

import base64
import io
import sys
import time
from typing import Any

import torch
from comfy_execution.utils import get_executing_context
from PIL import Image
from torch import Tensor

from loopanimate_core.picture.images import to_uint8
from loopanimate_core.picture.sheet import draw_sheet, plan_sheet

EVENT = "loopanimate.preview"
SECONDS_BETWEEN = 0.5
SHARE_OF_TIME = 0.1  # of the sampling time, for previews
DECODED_AT_ONCE = 4  # frames
CELL_SIDE_PX = 128


class LoopPreview:
    """Sends all frames, small, at most twice a second, and less often if making them is slow."""

    def __init__(self, latent_format: Any, fps: float) -> None:
        self.latent_format = latent_format
        self.fps = fps
        self._next_s = 0.0

    def show(self, x0: Tensor, step: int, steps: int) -> None:
        """Send the frames `x0 [P, 4, h, w]` that play, as predicted after `step` (from 0) of `steps`."""
        server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
        context, now = get_executing_context(), time.monotonic()
        if server is None or server.client_id is None or context is None:
            return
        if now < self._next_s and step + 1 < steps:
            return
        frames = small_frames(x0, self.latent_format)
        layout = plan_sheet(*frames.shape[:3])
        data = {
            "node": context.node_id,
            "prompt_id": context.prompt_id,
            "sheet": jpeg_uri(draw_sheet(frames, layout)),
            "columns": layout.columns,
            "frames": layout.frames,
            "width": layout.width_px,
            "height": layout.height_px,
            "fps": self.fps,
            "step": step + 1,
            "steps": steps,
        }
        server.send_sync(EVENT, data, server.client_id)
        taken_s = time.monotonic() - now
        self._next_s = now + max(SECONDS_BETWEEN, taken_s / SHARE_OF_TIME)


def small_frames(x0: Tensor, latent_format: Any) -> Tensor:
    """Latents `[P, 4, h, w]` to `[P, H, W, 3]` in 0..1 on the CPU, at most CELL_SIDE_PX on the long side."""
    try:
        rgb = decoded(x0, latent_format)
    except torch.OutOfMemoryError:  # a preview must not stop the sampling
        rgb = coloured(x0, latent_format)
    scale = min(8.0, CELL_SIDE_PX / max(rgb.shape[2:]))
    size = [max(1, round(side * scale)) for side in rgb.shape[2:]]
    rgb = torch.nn.functional.interpolate(rgb, size=size, mode="bilinear", antialias=True)
    return ((rgb + 1) / 2).clamp(0, 1).cpu().movedim(1, -1)


def decoded(x0: Tensor, latent_format: Any) -> Tensor:
    """Pictures `[P, 3, H, W]` in -1..1 by the tiny decoder; without one, by colours."""
    decoder = latent_format.tiny_decoder
    if decoder is None:
        return coloured(x0, latent_format)
    dtype = next(decoder.parameters()).dtype
    latents = latent_format.process_out(x0).to(dtype)
    decoder.to(x0.device)
    return torch.cat([decoder(part).float() for part in latents.split(DECODED_AT_ONCE)])


def coloured(x0: Tensor, latent_format: Any) -> Tensor:
    """`[P, 3, h, w]` in about -1..1: one colour per latent."""
    factors = x0.new_tensor(latent_format.latent_rgb_factors, dtype=torch.float32)
    bias = x0.new_tensor(latent_format.latent_rgb_factors_bias, dtype=torch.float32)
    return torch.einsum("pchw,cr->prhw", x0.float(), factors) + bias[:, None, None]


def jpeg_uri(picture: Tensor) -> str:
    """A picture `[H, W, 3]` in 0..1 as a `data:` address."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(picture).numpy()).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
