"""Still pictures: reading any kind, fitting them to a size, saving them.

Pictures are torch float32 `[H, W, 3]` and frames `[F, H, W, 3]`, both sRGB values in 0..1.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from ..errors import LoopAnimateError
from ..files import atomic_write, read_file
from ..memory import require_memory
from . import SIZE_MULTIPLE_PX
from .opening import MAX_FILE_BYTES, MAX_PIXELS, open_picture, reading, too_large

MIN_SIDE_PX = 16
READING_BYTES_PER_PIXEL = (
    28  # at the highest: Pillow's copy, the array, and colours and alpha as floats
)
MAX_ASPECT = 8.0
MAX_FIT_PX = 8192
OPAQUE_ALPHA = 254.5 / 255

FitMode = Literal["crop", "pad", "stretch"]
Background = tuple[float, float, float] | Literal["mean"]
WHITE = (1.0, 1.0, 1.0)

_SAVE_OPTIONS: dict[str, dict[str, object]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "lossless": True},
}
# These hold one still picture, although Pillow counts embedded previews or layers as frames.
_STILL_FORMATS = {"MPO", "PSD", "ICO", "ICNS"}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A still picture.

    Attributes:
        rgb: `[H, W, 3]` float32 in 0..1, not premultiplied by alpha.
        alpha: `[H, W]` float32 in 0..1, or None when every pixel is opaque.
        path: the file it came from, or None.
    """

    rgb: torch.Tensor
    alpha: torch.Tensor | None = None
    path: Path | None = None

    @property
    def height_px(self) -> int:
        return self.rgb.shape[0]

    @property
    def width_px(self) -> int:
        return self.rgb.shape[1]

    @property
    def stem(self) -> str:
        """The file name without folder and extension; `picture` when there is no file."""
        return self.path.stem if self.path else "picture"

    def over(self, background: Background = WHITE) -> torch.Tensor:
        """`[H, W, 3]`: the picture blended with a plain colour (`mean`: the mean visible colour)."""
        if self.alpha is None:
            return self.rgb
        alpha = self.alpha[..., None]
        return self.rgb * alpha + _background_colour(self, background) * (1 - alpha)


def load_picture(path: str | os.PathLike[str]) -> Picture:
    """Read a still picture of any kind that Pillow knows, upright and in sRGB.

    EXIF orientation and embedded colour profiles are applied. Grey, palette, CMYK and 16-bit pictures
    become RGB, transparency becomes `alpha`. Of an animated file the first frame is read, with a
    warning.

    Raises:
        LoopAnimateError: the file is missing, not a picture, damaged, fully transparent, smaller than
            16 px on a side, more than 8 times as long as wide, or larger than 178 megapixels.
    """
    path = Path(path)
    data = read_file(path, "picture file", MAX_FILE_BYTES)
    with reading(path):
        rgb, alpha = _decode(data, path)
    return Picture(rgb, alpha, path)


def load_mask(path: str | os.PathLike[str], picture: Picture) -> torch.Tensor:
    """Read the mask of a picture, `[H, W]` of the picture's size: 1 where the file is white, 0 elsewhere.

    Raises:
        LoopAnimateError: the file cannot be read, or has another size than the picture.
    """
    mask = load_picture(path)
    if mask.rgb.shape != picture.rgb.shape:
        raise LoopAnimateError(
            f"the mask {path} is {mask.width_px} x {mask.height_px} pixels; it must have the"
            f" picture's size, {picture.width_px} x {picture.height_px}"
        )
    return (mask.over((0.0, 0.0, 0.0)).mean(-1) > 0.5).float()


def fit_picture(
    picture: Picture | torch.Tensor,
    height_px: int,
    width_px: int,
    mode: FitMode = "crop",
    background: Background = WHITE,
) -> torch.Tensor:
    """Resize a picture to `[height_px, width_px, 3]` with an antialiased bicubic filter.

    Args:
        picture: a Picture, or `[H, W, 3]` in 0..1.
        height_px, width_px: multiples of 8 in 16..8192.
        mode: `crop` fills the size and crops the picture evenly, `pad` shows the whole picture and
            fills the rest with the background, `stretch` changes the aspect ratio.
        background: colour in 0..1 under transparent pixels and in the padding; `mean` is the mean
            visible colour.

    Raises:
        LoopAnimateError: an illegal size or mode, or a tensor that is not `[H, W, 3]`.
    """
    if isinstance(picture, torch.Tensor):
        picture = Picture(require_rgb(picture))
    check_fit_size(height_px, width_px)
    fitted = fit_pixels(picture.over(background), height_px, width_px, mode)
    if mode != "pad":
        return fitted
    inside = fit_pixels(torch.ones_like(picture.rgb[..., :1]), height_px, width_px, mode)
    return torch.where(inside > 0.5, fitted, _background_colour(picture, background).to(fitted))


def fit_mask(
    mask: torch.Tensor, height_px: int, width_px: int, mode: FitMode = "crop"
) -> torch.Tensor:
    """Fit a mask `[H, W]` of the original picture to `[height_px, width_px]`, values 0 and 1.

    It covers the same pixels as `fit_picture` with the same arguments; padding is 0.
    """
    if mask.ndim != 2:
        raise LoopAnimateError(f"a mask must have the shape [H, W], got {list(mask.shape)}")
    check_fit_size(height_px, width_px)
    fitted = fit_pixels(mask.float()[..., None], height_px, width_px, mode)
    return (fitted[..., 0] > 0.5).float()


def to_uint8(frames: torch.Tensor) -> torch.Tensor:
    """0..1 to 0..255, rounded and clipped; NaN becomes 0. Any shape."""
    return (frames.detach().float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)


def save_picture(picture: torch.Tensor, path: str | os.PathLike[str]) -> Path:
    """Write `[H, W]`, `[H, W, 3]` or `[H, W, 4]` in 0..1 as PNG, JPEG or lossless WebP, atomically.

    Raises:
        LoopAnimateError: another suffix or shape, alpha in a JPEG, or a file that cannot be written.
    """
    path = Path(path)
    options = _SAVE_OPTIONS[check_picture_suffix(path)]
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] not in (3, 4)):
        raise LoopAnimateError(
            "a picture must have the shape [H, W], [H, W, 3] or [H, W, 4], got"
            f" {list(picture.shape)}"
        )
    if options["format"] == "JPEG" and picture.ndim == 3 and picture.shape[2] == 4:
        raise LoopAnimateError(f"{path.name!r}: JPEG cannot hold transparency, use .png or .webp")
    image = Image.fromarray(to_uint8(picture).cpu().numpy())
    with atomic_write(path) as temporary:
        image.save(temporary, **options)  # pyright: ignore[reportArgumentType]
    return path


def check_picture_suffix(path: Path) -> str:
    """The lower-case suffix of a picture file to write.

    Raises:
        LoopAnimateError: `save_picture` does not know the suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in _SAVE_OPTIONS:
        raise LoopAnimateError(
            f"{path.name!r} must end in one of {', '.join(_SAVE_OPTIONS)} to be saved as a picture"
        )
    return suffix


def require_rgb(picture: torch.Tensor) -> torch.Tensor:
    """The picture as float32, after checking that it is `[H, W, 3]`."""
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise LoopAnimateError(
            f"a picture must have the shape [H, W, 3], got {list(picture.shape)}"
        )
    return picture.float()


def require_frames(frames: torch.Tensor) -> torch.Tensor:
    """The frames as they are, after checking that they are `[F, H, W, 3]` and not empty."""
    if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise LoopAnimateError(
            f"frames must have the shape [F, H, W, 3] with F >= 1, got {list(frames.shape)}"
        )
    return frames


def _decode(data: bytes, path: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Decode file contents to rgb `[H, W, 3]` and alpha `[H, W]` or None."""
    with warnings.catch_warnings():
        # Pillow warns above 89 megapixels; _check_size decides instead.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = open_picture(io.BytesIO(data))
    _check_size(image, path)
    width, height = image.size
    needed = READING_BYTES_PER_PIXEL * width * height
    require_memory(needed, f"reading {path} ({width} x {height} pixels)", "use a smaller picture")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in _STILL_FORMATS:
        _log.warning("%s has %d frames; only the first is used", path, frames)
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        grey = torch.from_numpy(_deep_grey(image, path))
        rgb, alpha = grey[..., None].expand(-1, -1, 3).contiguous(), _deep_alpha(image)
    else:
        pixels = torch.from_numpy(np.array(_to_srgb(image)))
        del image  # or Pillow's copy stays while the floats are made
        rgb = pixels[..., :3].float().contiguous().div_(255)
        alpha = pixels[..., 3].float().div_(255) if pixels.shape[2] == 4 else None
    if alpha is None:
        return rgb, None
    if alpha.max() == 0:
        raise LoopAnimateError(f"{path} is fully transparent")
    return rgb, None if alpha.min() > OPAQUE_ALPHA else alpha


def _check_size(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE_PX:
        raise LoopAnimateError(
            f"{path} is {width} x {height} pixels; each side must be at least {MIN_SIDE_PX}"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise LoopAnimateError(
            f"{path} is {width} x {height} pixels; the longer side must be at most {MAX_ASPECT:g} times"
            " the shorter side"
        )
    if width * height > MAX_PIXELS:
        raise too_large(path)


def _to_srgb(image: Image.Image) -> Image.Image:
    """An 8-bit image as RGB or RGBA in sRGB."""
    if image.mode in ("RGBa", "La"):  # premultiplied; Pillow cannot convert these directly
        image = image.convert("RGBA" if image.mode == "RGBa" else "LA")
    transparent = image.has_transparency_data
    image = _apply_profile(image)
    wanted = "RGBA" if transparent else "RGB"
    return image if image.mode == wanted else image.convert(wanted)


def _apply_profile(image: Image.Image) -> Image.Image:
    """Convert an embedded colour profile (phones: Display P3, print: CMYK) to sRGB."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if not profile or image.mode not in ("RGB", "RGBA", "CMYK"):
        return image
    try:
        from PIL import ImageCms
    except ImportError:  # Pillow built without littlecms
        return image
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            outputMode="RGBA" if image.mode == "RGBA" else "RGB",
        )
    except (OSError, ImageCms.PyCMSError, ValueError) as error:
        _log.warning("the embedded colour profile is unusable and was ignored (%s)", error)
        return image
    return converted or image


def _deep_grey(image: Image.Image, path: Path) -> np.ndarray:
    """Grey pictures of more than 8 bits as `[H, W]` float32 in 0..1."""
    grey = np.asarray(image).astype(np.float32)
    if image.mode != "F":
        white = 65535.0 if grey.max() <= 65535 else 2.0**31 - 1
        return np.clip(grey / white, 0, 1)
    if not (np.isfinite(grey).all() and grey.min() >= 0 and grey.max() <= 1):
        raise LoopAnimateError(f"{path} has floating-point pixels outside 0..1")
    return grey


def _deep_alpha(image: Image.Image) -> torch.Tensor | None:
    """The one transparent level that a PNG of 16-bit grey may have, as alpha `[H, W]`."""
    level = image.info.get("transparency")
    if not isinstance(level, int):
        return None
    return torch.from_numpy((np.asarray(image) != level).astype(np.float32))


def _background_colour(picture: Picture, background: Background) -> torch.Tensor:
    """`[3]`: the given colour, or the mean of the visible pixels."""
    if background != "mean":
        if len(background) != 3 or not all(0 <= channel <= 1 for channel in background):
            raise LoopAnimateError(
                f"background must be 'mean' or three numbers in 0..1, got {background}"
            )
        return torch.tensor(background, dtype=torch.float32, device=picture.rgb.device)
    if picture.alpha is None:
        return picture.rgb.mean((0, 1))
    return (picture.rgb * picture.alpha[..., None]).sum((0, 1)) / picture.alpha.sum()


def check_fit_size(height_px: int, width_px: int) -> None:
    """Raises LoopAnimateError for a size that `fit_picture` cannot make."""
    for name, side in (("height_px", height_px), ("width_px", width_px)):
        if side % SIZE_MULTIPLE_PX or not MIN_SIDE_PX <= side <= MAX_FIT_PX:
            raise LoopAnimateError(
                f"{name} ({side}) must be a multiple of {SIZE_MULTIPLE_PX} in"
                f" {MIN_SIDE_PX}..{MAX_FIT_PX}"
            )


def fit_pixels(
    pixels: torch.Tensor, height_px: int, width_px: int, mode: FitMode = "crop"
) -> torch.Tensor:
    """`[H, W, C]` to `[height_px, width_px, C]` of any size; padding is 0. See `fit_picture`."""
    if mode not in ("crop", "pad", "stretch"):
        raise LoopAnimateError(f"mode must be 'crop', 'pad' or 'stretch', got {mode!r}")
    height, width = pixels.shape[:2]
    if mode == "stretch":
        return _resize(pixels, height_px, width_px)
    ratios = (height_px / height, width_px / width)
    if mode == "crop":
        return _resize(_centre_crop(pixels, height_px, width_px, max(ratios)), height_px, width_px)
    inner_height = max(1, min(height_px, round(height * min(ratios))))
    inner_width = max(1, min(width_px, round(width * min(ratios))))
    top, left = (height_px - inner_height) // 2, (width_px - inner_width) // 2
    padded = pixels.new_zeros(height_px, width_px, pixels.shape[2])
    padded[top : top + inner_height, left : left + inner_width] = _resize(
        pixels, inner_height, inner_width
    )
    return padded


def _centre_crop(pixels: torch.Tensor, height_px: int, width_px: int, scale: float) -> torch.Tensor:
    """The middle part that has the wanted size after scaling by `scale`."""
    height = min(pixels.shape[0], max(1, round(height_px / scale)))
    width = min(pixels.shape[1], max(1, round(width_px / scale)))
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _resize(pixels: torch.Tensor, height_px: int, width_px: int) -> torch.Tensor:
    if tuple(pixels.shape[:2]) == (height_px, width_px):
        return pixels.clone()
    resized = F.interpolate(
        pixels.permute(2, 0, 1)[None],
        size=(height_px, width_px),
        mode="bicubic",
        align_corners=False,
        antialias=True,
    )
    return resized[0].permute(1, 2, 0).clamp(0, 1).contiguous()
