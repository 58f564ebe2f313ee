"""Stickers for the mini model: packed animated emoji become one cache of sprites and clips.

The art comes from the npm packages `@lobehub/fluent-emoji-anim-1` … `-4` (Microsoft's Fluent emoji, distributed under
the MIT licence), names and tags from `emojibase-data` (MIT). `download` fetches it; six clips are shipped, for the
trainer's demo.

The cache is three files: `sprites.npy` [N, S, S, 4] uint8 (first frames, straight alpha), `clips.npy` [T, S, S, 4] uint8
(all frames of the animated ones, one after another) and `emoji.json`, one record per sprite.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

PACKAGES = (
    *(f"@lobehub/fluent-emoji-anim-{n}@1.0.0" for n in range(1, 5)),
    "emojibase-data@17.0.0",
)
NAMES_FILE = "package/en/data.json"
SPRITE_PX = 128
HELD_OUT_ONE_IN = 10

_TONES = {f"1f3f{digit}" for digit in "bcdef"}
_DROPPED = _TONES | {"fe0f", "200d", "2640", "2642"}  # variation selector, joiner, gender signs
_GENDER_NEUTRAL = {
    "1f468": "1f9d1",  # man, woman → person
    "1f469": "1f9d1",
    "1f466": "1f9d2",  # boy, girl → child
    "1f467": "1f9d2",
    "1f474": "1f9d3",  # old man, old woman → older person
    "1f475": "1f9d3",
    "1f934": "1fac5",  # prince, princess → person with crown
    "1f478": "1fac5",
    "1f936": "1f385",  # Mrs. Claus → Santa Claus
}
_CLOCKS = range(0x1F550, 0x1F568)


@dataclass(frozen=True)
class Emoji:
    """One sticker. `clip_start`, `clip_frames`: its frames in `clips.npy` (0 frames: not animated)."""

    hexcode: str
    name: str
    tags: tuple[str, ...]
    family: str
    held_out: bool
    touches_edge: bool
    clip_start: int = 0
    clip_frames: int = 0


class EmojiCache:
    """The prepared stickers, memory-mapped: opening is instant and processes share the pages."""

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        index = folder / "emoji.json"
        if not index.is_file():
            raise LoopAnimateError(
                f"{folder} holds no sticker cache (emoji.json); run the data step first"
            )
        self.folder = folder
        self.emoji = [
            Emoji(**{**row, "tags": tuple(row["tags"])}) for row in json.loads(index.read_text())
        ]

    @cached_property
    def sprites(self) -> NDArray[np.uint8]:
        """[N, S, S, 4] uint8, straight alpha."""
        return np.load(self.folder / "sprites.npy", mmap_mode="r")

    @cached_property
    def clips(self) -> NDArray[np.uint8]:
        """[T, S, S, 4] uint8, straight alpha."""
        return np.load(self.folder / "clips.npy", mmap_mode="r")

    @cached_property
    def content(self) -> str:
        """A hash of the names and the first frames, and of how much there is of the others, which come from
        the same files and are too many to read."""
        digest = hashlib.sha256((self.folder / "emoji.json").read_bytes())
        with (self.folder / "sprites.npy").open("rb") as sprites:
            while block := sprites.read(1 << 20):
                digest.update(block)
        digest.update(str((self.folder / "clips.npy").stat().st_size).encode())
        return digest.hexdigest()[:16]

    def select(self, held_out: bool, *, movable: bool = False, animated: bool = False) -> list[int]:
        """Row numbers of one side of the split; `movable` leaves out art cut off by the picture's edge."""
        return [
            row
            for row, emoji in enumerate(self.emoji)
            if emoji.held_out == held_out
            and not (movable and emoji.touches_edge)
            and not (animated and emoji.clip_frames == 0)
        ]


def family_of(hexcode: str) -> str:
    """What is left of an emoji's code points without skin tone, gender and joiners.

    Versions of one drawing (man, woman, person; the clock faces; the keycaps) share a family, so that the split by
    family never tests on a drawing whose sister was trained on.
    """
    points = [
        _GENDER_NEUTRAL.get(point, point)
        for point in hexcode.lower().split("-")
        if point not in _DROPPED
    ]
    if "20e3" in points:
        return "keycap"
    if len(points) == 1 and int(points[0], 16) in _CLOCKS:
        return "clock"
    return "-".join(points)


def is_held_out(family: str) -> bool:
    """One family in ten, by hash: the same on every machine and for every later addition."""
    return int(hashlib.sha256(family.encode()).hexdigest(), 16) % HELD_OUT_ONE_IN == 0


def download(folder: str | Path) -> list[Path]:
    """Fetch the five packages with the npm client (about 740 MB once); files already there are kept."""
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
                    "the npm client is needed to download the stickers; install Node.js"
                ) from error
            except subprocess.CalledProcessError as error:
                raise LoopAnimateError(
                    f"npm could not fetch {package}: {error.stderr.strip()}"
                ) from error
        archives.append(archive)
    return archives


def prepare(
    archives: Iterable[Path], folder: str | Path, *, sprite_px: int = SPRITE_PX, clips: bool = True
) -> EmojiCache:
    """Decode the packages into a cache in `folder`; about two minutes and 3.5 GB with `clips`, 0.13 GB without."""
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
            animation = Image.open(io.BytesIO(data))
            still = _resized(animation, sprite_px)
            frames = getattr(animation, "n_frames", 1) if clips else 1
            if frames > 1:
                for number in range(frames):
                    animation.seek(number)
                    sink.write(_resized(animation, sprite_px).tobytes())
            name, tags = names.get(_key(hexcode), ("sticker", ()))
            family = family_of(hexcode)
            moving = frames if frames > 1 else 0
            rows.append(
                Emoji(
                    hexcode,
                    name,
                    tags,
                    family,
                    is_held_out(family),
                    _touches_edge(still),
                    frames_total,
                    moving,
                )
            )
            stills.append(still)
            frames_total += moving
    _save_array(folder / "sprites.npy", np.stack(stills))
    _wrap_raw(raw_clips, folder / "clips.npy", (frames_total, sprite_px, sprite_px, 4))
    with atomic_write(
        folder / "emoji.json"
    ) as path:  # written last: its presence says the cache is whole
        path.write_text(json.dumps([asdict(row) for row in rows], indent=0))
    return EmojiCache(folder)


def _distinct_webps(packs: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """(hexcode, file) of every picture that is not a skin-tone variant, each code once."""
    seen: set[str] = set()
    for pack in packs:
        with tarfile.open(pack) as archive, tqdm(archive, desc=pack.name, unit="file") as members:
            for member in members:
                hexcode = Path(member.name).stem.lower()
                if (
                    not member.name.endswith(".webp")
                    or hexcode in seen
                    or _TONES & set(hexcode.split("-"))
                ):
                    continue
                seen.add(hexcode)
                stream = archive.extractfile(member)
                assert stream is not None  # a regular file: its name ends in .webp
                yield hexcode, stream.read()


def _read_names(pack: Path) -> dict[str, tuple[str, tuple[str, ...]]]:
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
    """Packs disagree about the invisible variation selector and leading zeros; leave both out."""
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
    """Put a .npy header before raw bytes whose count was not known while they were written."""
    with atomic_write(target) as partial, partial.open("wb") as sink, raw.open("rb") as source:
        np.lib.format.write_array_header_1_0(
            sink, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        while block := source.read(1 << 24):
            sink.write(block)
    raw.unlink()
