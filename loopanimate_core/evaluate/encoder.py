"""The image encoder of CLIP-I, FC and Loop-C."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..bundle import mini_bundle_path, read_bundle
from ..encoders.image import encode_image
from ..errors import LoopAnimateError
from .store import file_hash

AT_ONCE = 16  # pictures


@dataclass
class Encoder:
    """An image encoder that is opened when it is first used.

    Attributes:
        name: shown in the table.
        is_clip: a CLIP of its own rather than a bundle's encoder.
        identity: a hash of its weights.
    """

    name: str
    is_clip: bool
    identity: str
    _open: Callable[[], Callable[[Tensor], Tensor]]
    _encode: Callable[[Tensor], Tensor] | None = None

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Tensor:
        """Pictures `[N, H, W, 3]` in 0..1 to embeddings `[N, D]`."""
        if self._encode is None:
            self._encode = self._open()
        return torch.cat([self._encode(part).float().cpu() for part in pictures.split(AT_ONCE)])

    def title(self, metric: str) -> str:
        """`CLIP-I`, or `CLIP-I (mini's encoder)`: scores of other encoders must not be taken for CLIP's."""
        return metric if self.is_clip else f"{metric} ({self.name})"


def open_encoder(path: Path | None = None, device: torch.device | str = "cpu") -> Encoder:
    """The encoder of a CLIP folder or of a bundle.

    Args:
        path: a folder as transformers saves a CLIP model (config.json, model.safetensors and, with it,
            preprocessor_config.json), or a bundle, whose own encoder is taken; None is the bundled mini.

    Raises:
        LoopAnimateError: there is no such folder or file.
    """
    if path is not None and path.is_dir():
        weights = sorted([*path.glob("*.safetensors"), *path.glob("*.bin")])
        if not (path / "config.json").is_file() or not weights:
            raise LoopAnimateError(
                f"the folder {path} must have a config.json and the weights of a CLIP model"
            )
        return Encoder(
            path.resolve().name, True, file_hash(path), lambda: _clip_folder(path, device)
        )
    file = path or mini_bundle_path()
    if not file.is_file():
        raise LoopAnimateError(f"there is no CLIP folder and no bundle {file}")
    return Encoder(
        f"{'mini' if path is None else file.stem}'s encoder",
        False,
        file_hash(file),
        lambda: _bundle_encoder(file, device),
    )


def _bundle_encoder(path: Path, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    encoder = read_bundle(path, device=device).image_encoder
    if encoder is None:
        raise LoopAnimateError(
            f"{path} has no image encoder; another one is needed for the CLIP figures"
        )
    return lambda pictures: encode_image(encoder, pictures.permute(0, 3, 1, 2))[:, 0]


def _clip_folder(path: Path, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """CLIP as its authors use it: the shorter side resized, the middle square cut out."""
    from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

    try:
        model: Any = CLIPVisionModelWithProjection.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise LoopAnimateError(f"cannot open the CLIP model in {path}: {error}") from error
    model.eval().to(device)
    side_px = model.config.image_size
    if (path / "preprocessor_config.json").is_file():
        prepare: Any = CLIPImageProcessor.from_pretrained(path, local_files_only=True)
    else:
        square = {"height": side_px, "width": side_px}
        prepare = CLIPImageProcessor(size={"shortest_edge": side_px}, crop_size=square)

    def encode(pictures: Tensor) -> Tensor:
        bytes_ = [(picture.clamp(0, 1) * 255).round().byte().numpy() for picture in pictures.cpu()]
        pixels = prepare(images=bytes_, return_tensors="pt")["pixel_values"]
        return model(pixel_values=pixels.to(device, model.dtype)).image_embeds

    return encode
