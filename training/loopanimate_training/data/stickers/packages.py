"""Stickers from npm packages: download them, and make a sticker cache of them.

The art comes from `@lobehub/fluent-emoji-anim-1` … `-4` (Microsoft's Fluent emoji, distributed under the MIT licence),
names and tags from `emojibase-data` (MIT). Six of the clips are part of this repository, for the trainer's demo.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.opening import open_picture

from ..photographs import split
from .emoji import SKIN_TONES, Emoji, EmojiCache, family_of, is_held_out

PACKAGES = (
    *(f"@lobehub/fluent-emoji-anim-{n}@1.0.0" for n in range(1, 5)),
    "emojibase-data@17.0.0",
)
NAMES_FILE = "package/en/data.json"
SPRITE_PX = 128
STAMP_SHARE = 0.92  # of the sprite's side: stickers have a rim, too

Names = dict[str, tuple[str, tuple[str, ...]]]  # key of a hexcode to name and tags


def download(folder: str | Path) -> list[Path]:
    """Fetch the five packages with the npm client (about 740 MB); files that exist are kept.

    Raises:
        LoopAnimateError: npm is not installed, or fails.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    archives = []
    for package in tqdm(PACKAGES, desc="npm pack", unit="package"):
        archive = folder / (package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz")
        if not archive.is_file():
            command = ["npm", "pack", "--silent", "--pack-destination", str(folder), package]
            try:
                subprocess.run(command, check=True, capture_output=True, text=True)
            except FileNotFoundError as error:
                raise LoopAnimateError(
                    "downloading the stickers needs npm; install Node.js"
                ) from error
            except subprocess.CalledProcessError as error:
                raise LoopAnimateError(
                    f"npm could not fetch {package}: {error.stderr.strip()}"
                ) from error
        archives.append(archive)
    return archives


def prepare(
    archives: Iterable[Path],
    folder: str | Path,
    *,
    sprite_px: int = SPRITE_PX,
    stamps: str | Path | None = None,
) -> EmojiCache:
    """Decode the packages into a cache in `folder`; takes about two minutes and 3.5 GB.

    `stamps`: a folder of RGBA pictures of single objects, which become stickers named by their files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    *packs, names_pack = sorted(
        map(Path, archives), key=lambda path: ("emojibase" in path.name, path.name)
    )
    names = _read_names(names_pack)
    rows: list[Emoji] = []
    stills: list[NDArray[np.uint8]] = []
    frames_total = 0
    raw_clips = folder / "clips.raw"
    with raw_clips.open("wb") as sink:
        for hexcode, data in _distinct_webps(packs):
            animation = open_picture(io.BytesIO(data))
            still = _resized(animation, sprite_px)
            frames = _append_frames(animation, sprite_px, sink)
            rows.append(_record(hexcode, names, still, frames_total, frames))
            stills.append(still)
            frames_total += frames
    for path in sorted(Path(stamps).rglob("[!.]*.png")) if stamps else ():
        still = stamp_sprite(path, sprite_px)
        rows.append(_stamp_record(path, still))
        stills.append(still)
    _save_array(folder / "sprites.npy", np.stack(stills))
    _wrap_raw(raw_clips, folder / "clips.npy", (frames_total, sprite_px, sprite_px, 4))
    with atomic_write(folder / "emoji.json") as path:  # last: a cache with this file is complete
        path.write_text(json.dumps([asdict(row) for row in rows], indent=0))
    return EmojiCache(folder)


def _append_frames(animation: Image.Image, size_px: int, sink: BinaryIO) -> int:
    """Write the frames of an animation and return their number; a still has 0."""
    frames = getattr(animation, "n_frames", 1)
    if frames == 1:
        return 0
    for number in range(frames):
        animation.seek(number)
        sink.write(_resized(animation, size_px).tobytes())
    return frames


def _record(
    hexcode: str, names: Names, still: NDArray[np.uint8], clip_start: int, clip_frames: int
) -> Emoji:
    name, tags = names.get(_key(hexcode), ("sticker", ()))
    family = family_of(hexcode)
    return Emoji(
        hexcode=hexcode,
        name=name,
        tags=tags,
        family=family,
        held_out=is_held_out(family),
        touches_edge=_touches_edge(still),
        clip_start=clip_start,
        clip_frames=clip_frames,
    )


def stamp_sprite(path: Path, sprite_px: int) -> NDArray[np.uint8]:
    """A cut-out picture of any shape as a square sprite [S, S, 4], in its middle, its own alpha's box filling it."""
    picture = open_picture(path).convert("RGBA")
    picture = picture.crop(picture.getchannel("A").getbbox())
    side_px = max(picture.size)
    square = Image.new("RGBA", (side_px, side_px))
    square.paste(picture, ((side_px - picture.width) // 2, (side_px - picture.height) // 2))
    sprite = _resized(square, round(STAMP_SHARE * sprite_px))
    rim = sprite_px - sprite.shape[0]
    return np.pad(sprite, ((rim // 2, rim - rim // 2),) * 2 + ((0, 0),))


def _stamp_record(path: Path, still: NDArray[np.uint8]) -> Emoji:
    """The name is the file's, without numbers and hash: `birds-duck-c4fe1b.png` is "duck"."""
    words = [word for word in path.stem.split("-")[:-1] if word.isalpha()]
    group, name = words[0], " ".join(words[1:]) or words[0]
    return Emoji(
        hexcode=path.stem,
        name=name,
        tags=(group, "photo"),
        family=f"stamp {split.subject_of(path.name)}",
        held_out=split.is_held_out(path.name),
        touches_edge=_touches_edge(still),
    )


def _distinct_webps(packs: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """Hexcode and file of every picture that is not a skin-tone variant, each code once."""
    seen: set[str] = set()
    for pack in packs:
        with tarfile.open(pack) as archive, tqdm(archive, desc=pack.name, unit="file") as members:
            for member in members:
                hexcode = Path(member.name).stem.lower()
                if (
                    not member.name.endswith(".webp")
                    or hexcode in seen
                    or SKIN_TONES & set(hexcode.split("-"))
                ):
                    continue
                seen.add(hexcode)
                stream = archive.extractfile(member)
                assert stream is not None  # a regular file: its name ends in .webp
                yield hexcode, stream.read()


def _read_names(pack: Path) -> Names:
    with tarfile.open(pack) as archive:
        stream = archive.extractfile(NAMES_FILE)
        assert stream is not None
        records = json.load(stream)
    return {
        _key(record["hexcode"]): (
            _plain(record["label"]),
            tuple(_plain(tag) for tag in record.get("tags", ())),
        )
        for record in records
    }


def _key(hexcode: str) -> str:
    """The code without variation selector and leading zeros, which packages write differently."""
    return "-".join(part.lstrip("0") for part in hexcode.lower().split("-") if part != "fe0f")


def _plain(text: str) -> str:
    """Lower-case words as a person would type them in a prompt."""
    ascii_text = (
        unicodedata.normalize("NFKD", text.replace("’", "'")).encode("ascii", "ignore").decode()
    )
    return " ".join(re.sub(r"[^a-z0-9' -]", " ", ascii_text.lower()).split())


def _resized(picture: Image.Image, size_px: int) -> NDArray[np.uint8]:
    """RGBA at `size_px`, resized with premultiplied alpha so that hidden colours do not bleed into edges."""
    premultiplied = (
        picture.convert("RGBA").convert("RGBa").resize((size_px, size_px), Image.Resampling.BOX)
    )
    return np.asarray(premultiplied.convert("RGBA"))


def _touches_edge(sprite: NDArray[np.uint8]) -> bool:
    opaque = sprite[..., 3] > 127
    return bool(opaque[0].any() or opaque[-1].any() or opaque[:, 0].any() or opaque[:, -1].any())


def _save_array(path: Path, array: NDArray[np.uint8]) -> None:
    with atomic_write(path) as partial, partial.open("wb") as sink:
        np.save(sink, array)


def _wrap_raw(raw: Path, target: Path, shape: tuple[int, ...]) -> None:
    """Make a .npy file of raw bytes: write the header, which needs the final shape, and copy them after it."""
    with atomic_write(target) as partial, partial.open("wb") as sink, raw.open("rb") as source:
        np.lib.format.write_array_header_1_0(
            sink, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        while block := source.read(1 << 24):
            sink.write(block)
    raw.unlink()
