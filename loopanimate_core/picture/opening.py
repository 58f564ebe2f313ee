"""Opening a picture file that nobody vouches for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from ..errors import LoopAnimateError
from ..files import require_file

MAX_PIXELS = 178_000_000  # Pillow rejects larger files as decompression bombs
MAX_FILE_BYTES = 8 * MAX_PIXELS  # 16-bit RGBA without compression
READ_FORMATS = (
    *("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM"),
    *("TGA", "PSD", "ICO", "ICNS", "PCX", "SGI", "QOI", "DDS", "XBM", "XPM"),
)
"""Pillow knows more formats; some of them, EPS above all, start other programs."""


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read and that this Pillow knows."""
    Image.init()
    return tuple(name for name in READ_FORMATS if name in Image.OPEN)


def open_picture(source: Path | io.BytesIO) -> Image.Image:
    """`Image.open` for the formats above, and only for plain files; raises what Pillow raises."""
    if isinstance(source, Path):
        require_file(source, "picture file", MAX_FILE_BYTES)
    return Image.open(source, formats=formats())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a decoder raises for a damaged file, as one sentence.

    Raises:
        LoopAnimateError: anything went wrong in the block.
    """
    try:
        yield
    except LoopAnimateError:
        raise
    except Image.DecompressionBombError as error:
        raise too_large(path) from error
    except UnidentifiedImageError as error:
        raise LoopAnimateError(
            f"{path} is not a picture in a known format, such as PNG, JPEG, WebP, TIFF or GIF"
        ) from error
    except MemoryError as error:
        raise LoopAnimateError(f"{path} does not fit into memory") from error
    except Exception as error:  # decoders of damaged files raise almost anything
        raise LoopAnimateError(f"{path} is damaged or cut off ({error})") from error


def too_large(path: Path) -> LoopAnimateError:
    return LoopAnimateError(
        f"{path} has too many pixels; at most {MAX_PIXELS / 1e6:.0f} megapixels can be read"
    )
