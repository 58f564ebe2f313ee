"""The cache of cut-outs: for every shape of picture, objects out of photographs and what is behind them.

Three files a shape: `pictures_{W}x{H}.npy` [N, H, W, 3], `alphas_{W}x{H}.npy` [N, H, W] (soft masks) and
`backgrounds_{W}x{H}.npy` [N, H, W, 3] (the object's place filled), all uint8; and `cutouts.json`, one record per
cut-out. A photograph is held out with all of its cut-outs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from loopanimate_core.detail.fill import fill_hole
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from .regions import draw_region
from .split import is_held_out

SHAPES_PX = ((96, 96), (72, 128), (128, 72))  # height, width: 144 latent tokens each
INDEX_FILE = "cutouts.json"
CROPS_PER_SHAPE, REGIONS_PER_CROP = 4, 2
_OVERSAMPLING = 2  # regions are found at twice the size, so that their masks become soft
LEAST_CONTRAST = 0.07
"""Root mean square difference (of 0..1) of object and background below which its motion is not seen."""
_RIM_PX = 2  # around the object: its edge's colours must not be in the background
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Cutout:
    """One cut-out. `row` counts the cut-outs of its shape."""

    photograph: str
    height_px: int
    width_px: int
    row: int
    held_out: bool


class CutoutCache:
    """The prepared cut-outs. The arrays are memory-mapped."""

    def __init__(self, folder: str | Path) -> None:
        self.folder, index = Path(folder), Path(folder) / INDEX_FILE
        if not index.is_file():
            raise LoopAnimateError(
                f"{folder} is not a cache of cut-outs: it has no {INDEX_FILE}. Make one with "
                "python -m loopanimate_training.mini WORK --until data"
            )
        self.cutouts = [Cutout(**record) for record in json.loads(index.read_text())]
        self._arrays: dict[str, NDArray[np.uint8]] = {}

    @cached_property
    def content(self) -> str:
        """A hash of the index."""
        return hashlib.sha256((self.folder / INDEX_FILE).read_bytes()).hexdigest()[:16]

    def select(self, held_out: bool, height_px: int, width_px: int) -> list[Cutout]:
        """Cut-outs of one shape on one side of the split."""
        wanted = (held_out, height_px, width_px)
        return [c for c in self.cutouts if (c.held_out, c.height_px, c.width_px) == wanted]

    def layer(self, cutout: Cutout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Picture [H, W, 3], alpha [H, W] and background [H, W, 3], uint8."""
        size = f"{cutout.width_px}x{cutout.height_px}"
        picture, alpha, background = (
            self._array(f"{kind}_{size}.npy")[cutout.row]
            for kind in ("pictures", "alphas", "backgrounds")
        )
        return picture, alpha, background

    def _array(self, name: str) -> NDArray[np.uint8]:
        if name not in self._arrays:
            self._arrays[name] = np.load(self.folder / name, mmap_mode="r")
        return self._arrays[name]


def prepare(
    photographs: str | Path,
    folder: str | Path,
    shapes_px: Sequence[tuple[int, int]] = SHAPES_PX,
    *,
    crops: int = CROPS_PER_SHAPE,
    regions: int = REGIONS_PER_CROP,
) -> CutoutCache:
    """Cut regions out of every picture below `photographs`, at every shape (height, width), into a cache in `folder`."""
    root, folder = Path(photographs), Path(folder)
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in _PICTURES)
    if not files:
        raise LoopAnimateError(f"{root} holds no pictures")
    folder.mkdir(parents=True, exist_ok=True)
    records: list[Cutout] = []
    for height_px, width_px in shapes_px:
        found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        bar = tqdm(files, desc=f"cut-outs {width_px} x {height_px}", unit="photo")
        for path in bar:
            name = path.relative_to(root).as_posix()
            for parts in _cut(path, name, height_px, width_px, crops, regions):
                records.append(Cutout(name, height_px, width_px, len(found), is_held_out(name)))
                found.append(parts)
        if not found:
            raise LoopAnimateError(
                f"{root} has nothing to cut out at {width_px} x {height_px} pixels: no part of "
                "a picture stands out enough from what is behind it"
            )
        for kind, arrays in zip(
            ("pictures", "alphas", "backgrounds"), zip(*found, strict=True), strict=True
        ):
            with (
                atomic_write(folder / f"{kind}_{width_px}x{height_px}.npy") as partial,
                partial.open("wb") as sink,
            ):
                np.save(sink, np.stack(arrays))
    with atomic_write(folder / INDEX_FILE) as partial:  # last: a cache with this file is complete
        partial.write_text(json.dumps([asdict(record) for record in records], indent=0))
    return CutoutCache(folder)


def _cut(
    path: Path, name: str, height_px: int, width_px: int, crops: int, regions: int
) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    seed = int(hashlib.sha256(f"{name} {width_px}x{height_px}".encode()).hexdigest()[:12], 16)
    rng = np.random.default_rng(seed)
    photograph = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if photograph is None:
        raise LoopAnimateError(f"{path} cannot be read as a picture")
    photograph = cv2.cvtColor(photograph, cv2.COLOR_BGR2RGB)
    for _ in range(crops):
        crop = _crop(photograph, height_px, width_px, rng)
        for _ in range(regions):
            mask = draw_region(crop, rng)
            if mask is None:
                continue
            parts = take_apart(crop, mask, height_px, width_px)
            if _contrast(*parts) >= LEAST_CONTRAST:
                yield parts


def _crop(
    photograph: np.ndarray, height_px: int, width_px: int, rng: np.random.Generator
) -> np.ndarray:
    """A random part of the shape's aspect, at twice its size."""
    rows, columns = photograph.shape[:2]
    largest = min(rows / height_px, columns / width_px)
    scale = largest * rng.uniform(0.55, 1.0)
    tall, wide = int(scale * height_px), int(scale * width_px)
    top, left = int(rng.integers(rows - tall + 1)), int(rng.integers(columns - wide + 1))
    part = photograph[top : top + tall, left : left + wide]
    size = (_OVERSAMPLING * width_px, _OVERSAMPLING * height_px)
    return cv2.resize(part, size, interpolation=cv2.INTER_AREA)


def _contrast(picture: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> float:
    difference = (picture.astype(np.float32) - background) / 255.0
    weight = alpha.astype(np.float32) / 255.0
    return float(np.sqrt(((difference**2).mean(-1) * weight).sum() / max(weight.sum(), 1e-6)))


def take_apart(
    picture: np.ndarray, mask: np.ndarray, height_px: int, width_px: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture [H, W, 3], soft alpha [H, W] and filled background [H, W, 3], uint8 at the given size.

    `picture` [h, w, 3] uint8 and `mask` [h, w] bool may be larger.
    """
    size = (width_px, height_px)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    alpha = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    rim = cv2.dilate((alpha > 0.02).astype(np.uint8), np.ones((2 * _RIM_PX + 1,) * 2, np.uint8))
    background = fill_hole(small.astype(np.float32) / 255.0, rim > 0)
    return (
        small,
        (alpha * 255.0).round().astype(np.uint8),
        (background * 255.0).round().astype(np.uint8),
    )
