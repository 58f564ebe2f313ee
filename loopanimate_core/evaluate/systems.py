"""What is compared: bundles, folders of videos from elsewhere, and baselines.

A system makes the loop of a case. It may make several kinds of loops of one motion: a bundle's frames as the model
drew them (`raw`), and the same motion in the picture's own pixels (`detail`). They are never mixed in one row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from .. import __version__
from ..bundle import bundle_info, mini_bundle_path
from ..errors import LoopAnimateError
from ..picture.images import Picture, fit_pixels, load_mask, load_picture
from ..picture.sheet import shrink_frames
from ..settings import resolve_settings
from ..video import read_loop
from ..video.frame_source import FrameSource
from .baselines import BASELINES, apply_baseline
from .cases import Case
from .store import Clip, Store, file_hash, key_of

if TYPE_CHECKING:
    from ..pipeline import Loop, LoopAnimatePipeline

RAW, DETAIL, VIDEO, BASELINE = "raw", "detail", "video", "baseline"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,59}")
SETTINGS = ("frames", "steps", "guidance", "scheduler", "closing", "start", "hold_still", "preset")
STILL_FRAMES, STILL_FPS = 34, 8.0  # without a clip to take them from: the paper's length
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".webp", ".apng", ".avif"}
)


class System(Protocol):
    """Something that makes loops."""

    @property
    def name(self) -> str:
        """Shown in tables, and the name of a folder."""
        ...

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the rows it has."""
        ...

    def identity(self, case: Case, kind: str) -> dict[str, Any]:
        """Plain values that decide the loop of a case, without making it.

        Raises:
            LoopAnimateError: there can be none.
        """
        ...

    def make(self, case: Case, kind: str, store: Store) -> tuple[FrameSource, float]:
        """The frames that play, `[P, H, W, 3]`, and their fps; `store` has what is finished already."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a reader of the table should know about it."""
        ...

    def close(self) -> None:
        """Free the memory."""
        ...


def check_name(name: str) -> str:
    """The name of a system, which becomes a folder.

    Raises:
        LoopAnimateError: it has other characters than letters, digits, space, dot, plus, minus and underscore.
    """
    if not NAME.fullmatch(name):
        raise LoopAnimateError(
            "a system's name must be 1 to 60 letters, digits, spaces or . _ + -, and begin with a letter or digit;"
            f" got {name!r}"
        )
    return name


@dataclass
class BundleSystem:
    """A model file, sampled by the pipeline.

    Attributes:
        path: None is the bundled mini.
        settings: of `LoopAnimatePipeline`, see `SETTINGS`; what is missing is the model's own.
        seed: the base of the pictures' seeds.
        size_px: the longer side of loops in the picture's own pixels.
    """

    name: str
    path: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    size_px: int = 512
    detail: bool = False
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32
    _pipeline: LoopAnimatePipeline | None = field(default=None, init=False, repr=False)
    _last: tuple[Case, Loop] | None = field(default=None, init=False, repr=False)
    _hash: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        check_name(self.name)
        if unknown := set(self.settings) - set(SETTINGS):
            raise LoopAnimateError(
                f"a setting must be one of {', '.join(SETTINGS)}, got {min(unknown)}"
            )
        if not self.file.is_file():
            raise LoopAnimateError(f"there is no model file {self.file}")
        config = bundle_info(self.file).config
        resolve_settings(config, **self.settings)  # a wrong one is an error now, not in every row

    @property
    def file(self) -> Path:
        return self.path or mini_bundle_path()

    @property
    def kinds(self) -> tuple[str, ...]:
        return (RAW, DETAIL) if self.detail else (RAW,)

    def open_clips(self) -> BundleSystem:
        """The same model without the closing of its loops: what a baseline has to close."""
        return BundleSystem(
            self.name,
            self.path,
            {**self.settings, "closing": "off"},
            self.seed,
            device=self.device,
            dtype=self.dtype,
        )

    def identity(self, case: Case, kind: str) -> dict[str, Any]:
        self._hash = self._hash or file_hash(self.file)
        return {
            "kind": kind,
            "version": __version__,
            "bundle": self._hash,
            "settings": dict(self.settings),
            "dtype": str(self.dtype),
            "seed": case.seed(self.seed),
            "picture": file_hash(case.picture),
            "prompt": case.prompt,
            "mask": None if case.mask is None else file_hash(case.mask),
            "size_px": self.size_px if kind == DETAIL else None,
        }

    def make(self, case: Case, kind: str, store: Store) -> tuple[FrameSource, float]:
        loop = self._sample(case)
        if kind == RAW:
            return loop.frames.float().cpu(), loop.fps
        width, height = fit_inside(loop.source, self.size_px)
        return loop.frames_at(f"{width}x{height}"), loop.fps

    def _sample(self, case: Case) -> Loop:
        """The loop of a case; of the last one without sampling again."""
        if self._last is None or self._last[0] != case:
            picture = load_picture(case.picture)
            mask = "auto" if case.mask is None else load_mask(case.mask, picture)
            loop = self.pipeline(
                picture, case.prompt, mask=mask, seed=case.seed(self.seed), **self.settings
            )
            self._last = case, loop
        return self._last[1]

    @property
    def pipeline(self) -> LoopAnimatePipeline:
        """The opened model."""
        if self._pipeline is None:
            from ..pipeline import LoopAnimatePipeline

            self._pipeline = LoopAnimatePipeline.from_bundle(
                self.path, device=self.device, dtype=self.dtype
            )
        return self._pipeline

    def facts(self) -> dict[str, Any]:
        routing = bundle_info(self.file).config.unet.routing
        return {
            "model": self.file.name,
            "sha256": self._hash or file_hash(self.file),
            "settings": dict(self.settings),
            "routing": list(routing),
        }

    def close(self) -> None:
        self._pipeline = self._last = None


@dataclass
class FolderSystem:
    """Videos from elsewhere: `cat.mp4` (or .webm, .gif, …, or a folder of PNGs `cat/`) belongs to the picture `cat`."""

    name: str
    folder: Path
    size_px: int = 512
    kinds: tuple[str, ...] = (VIDEO,)

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.folder.is_dir():
            raise LoopAnimateError(f"there is no folder {self.folder}")

    def identity(self, case: Case, kind: str) -> dict[str, Any]:
        return {"kind": kind, "video": file_hash(self._find(case)), "size_px": self.size_px}

    def make(self, case: Case, kind: str, store: Store) -> tuple[FrameSource, float]:
        frames, fps = read_loop(self._find(case))
        return shrink_frames(frames, self.size_px), fps

    def _find(self, case: Case) -> Path:
        found = [
            path
            for path in sorted(self.folder.iterdir())
            if (path.is_dir() and path.name == case.name)
            or (path.stem == case.name and path.suffix.lower() in VIDEO_SUFFIXES)
        ]
        if len(found) != 1:
            names = ", ".join(path.name for path in found)
            raise LoopAnimateError(
                f"{self.folder} has {len(found)} videos named {case.name} ({names}); one is needed"
                if found
                else f"{self.folder} has no video named {case.name}"
            )
        return found[0]

    def facts(self) -> dict[str, Any]:
        return {"folder": self.folder.name}

    def close(self) -> None:
        """Nothing is kept open."""


@dataclass
class Baseline:
    """A loop made of another system's clip without a model that loops.

    Attributes:
        method: a key of `BASELINES`.
        source: whose clip it is made of; None for `still`, which needs the picture only.
    """

    method: str
    source: System | None = None
    size_px: int = 512
    kinds: tuple[str, ...] = (BASELINE,)

    def __post_init__(self) -> None:
        if self.method not in BASELINES:
            raise LoopAnimateError(
                f"a baseline must be one of {', '.join(BASELINES)}, got {self.method!r}"
            )
        if (self.source is None) != (self.method == "still"):
            raise LoopAnimateError(
                f"the baseline {self.method} is made of"
                + (
                    " the picture alone"
                    if self.source
                    else " a clip of a bundle or a folder of videos"
                )
            )

    @property
    def name(self) -> str:
        return self.method

    def identity(self, case: Case, kind: str) -> dict[str, Any]:
        if self.source is None:
            of = {"picture": file_hash(case.picture), "size_px": self.size_px}
        else:
            of = self.source.identity(case, self.source.kinds[0])
        return {"kind": kind, "method": self.method, "of": of}

    def make(self, case: Case, kind: str, store: Store) -> tuple[FrameSource, float]:
        if self.source is not None:
            clip = finished_clip(store, self.source, case, self.source.kinds[0])
            return apply_baseline(self.method, clip.frames), clip.fps
        picture = load_picture(case.picture)
        width, height = fit_inside(picture, self.size_px)
        shown = fit_pixels(picture.over(), height, width)
        return apply_baseline(self.method, shown.expand(STILL_FRAMES, -1, -1, -1)), STILL_FPS

    def facts(self) -> dict[str, Any]:
        return {} if self.source is None else {"made of clips of": self.source.name}

    def close(self) -> None:
        if self.source is not None:
            self.source.close()


def finished_clip(store: Store, system: System, case: Case, kind: str) -> Clip:
    """The loop of a case from the store, made and stored first if it is not there."""
    key = key_of(system.identity(case, kind))
    clip = store.clip(key)
    return store.keep_clip(key, *system.make(case, kind, store)) if clip is None else clip


def fit_inside(picture: Picture, longest_px: int) -> tuple[int, int]:
    """Width and height of a picture whose longer side is at most `longest_px`; it is never enlarged."""
    scale = min(1.0, longest_px / max(picture.width_px, picture.height_px))
    return max(16, round(picture.width_px * scale)), max(16, round(picture.height_px * scale))
