"""Drawn clips: each is a pure function of (caches, split, shape, seed, clip id).

An object under a mask moves as the caption says over a background that rests: a sticker over a drawn background
or a photograph, or a part cut out of a photograph over what is behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch import Tensor

from ..photographs.cutouts import Cutout, CutoutCache
from .emoji import Emoji, EmojiCache
from .motion import (
    FIELDS,
    FPS,
    MOVING_VERBS,
    SHORT_NAMES,
    SPAN_FRAMES,
    SPEEDS,
    STILL,
    STRENGTHS,
    Deformation,
    Motion,
    deformation_at,
)
from .render import BACKGROUND_KINDS, Placement, Scene, compose, draw_background, place

SPLITS = ("train", "held_out")
# Of all clips; in the others the renderer moves a still sticker.
ANIMATED_SHARE, STILL_SHARE, CUTOUT_SHARE = 0.08, 0.08, 0.42
PHOTOGRAPH_SHARE = 0.35  # of the stickers: over a photograph instead of a drawn background
PLAIN_SHARE = 0.6  # of the moved stills: default speed and strength
TWO_VERBS_SHARE = 0.06
MISSING_MASK_SHARE, WRONG_MASK_SHARE = 0.06, 0.12  # of all clips; a missing mask is ones everywhere
NAME_FROM_STICKERS_SHARE = 0.4  # of the cut-outs, whose names are not known
THINGS = ("thing", "object", "photo", "picture", "shape", "part")


@dataclass(frozen=True)
class DrawnClip:
    """One clip and its caption. Pixels are drawn on demand, and only the frames asked for.

    Attributes:
        motion: how the renderer moves the object; None for an animated sticker, whose caption does not say how
            it moves.
        scene: the still, taken apart.
        subject: what identifies the object: a hexcode, or photograph and row.
        family: what is held out together.
        mask: "true", "missing" (ones), or the number of pixels by which it is too large, or too small if negative.
        animation, animation_rows, placement: `[T, S, S, 4]` uint8 frames, which of them the clip shows, and
            where; None for a moved still.
    """

    caption: str
    motion: Motion | None
    scene: Scene
    name: str
    subject: str
    family: str
    mask: str | int = "true"
    fps: float = FPS
    frame_count: int = SPAN_FRAMES
    animation: np.ndarray | None = field(repr=False, default=None)
    animation_rows: np.ndarray | None = field(repr=False, default=None)
    placement: Placement | None = None

    @property
    def verb(self) -> str:
        """The verb of the motion; "" for an animated sticker."""
        return self.motion.verb if self.motion else ""

    def draw(self, indices: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Frames [n, H, W, 3] in 0..1 and true masks [n, H, W] bool of the source frames `indices` (default: all)."""
        wanted = list(range(self.frame_count)) if indices is None else list(indices)
        if self.motion is not None:
            times_s = torch.tensor(wanted, dtype=torch.float32) / self.fps
            return self.scene.draw(deformation_at(self.motion, times_s))
        assert self.animation is not None and self.animation_rows is not None and self.placement
        layers = place(
            self.animation[self.animation_rows[wanted]], self.placement, *self.scene.size_px
        )
        rest = Deformation.from_stacked(torch.zeros(len(wanted), len(FIELDS)))
        return compose(layers, rest, self.scene.background, self.scene.anchors)

    def frames(self, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Frames as uint8 [n, H, W, 3], and masks [n, H, W] bool as the clip's `mask` says."""
        frames, masks = self.draw(indices)
        pixels = frames.mul(255.0).round_().clamp_(0, 255).byte().numpy()
        return pixels, np.stack([_spoilt(mask, self.mask) for mask in masks.numpy()])


class DrawnClips:
    """Endless clips of one split and shape; `clips[clip_id]` depends on the caches and the seed alone.

    Args:
        cutouts: None: stickers on drawn backgrounds only.
    """

    def __init__(
        self,
        cache: EmojiCache,
        split: str = "train",
        height_px: int = 96,
        width_px: int = 96,
        seed: int = 0,
        verbs: Sequence[str] = MOVING_VERBS,
        cutouts: CutoutCache | None = None,
    ) -> None:
        held_out = SPLITS.index(split) == 1
        self.cache, self.cutouts, self.seed = cache, cutouts, seed
        self.height_px, self.width_px = height_px, width_px
        self._split_number = int(held_out)
        self._any = cache.select(held_out)
        self._movable = cache.select(held_out, movable=True)
        self._animated = cache.select(held_out, animated=True)
        self._cut = cutouts.select(held_out, height_px, width_px) if cutouts else []
        self._moving_verbs = [verb for verb in verbs if verb != STILL]

    def __getitem__(self, clip_id: int) -> DrawnClip:
        rng = np.random.default_rng((self.seed, self._split_number, clip_id))
        kind = rng.random()
        if kind < ANIMATED_SHARE and self._animated:
            return self._animated_clip(rng)
        motion = Motion(STILL) if kind > 1.0 - STILL_SHARE else self._draw_motion(rng)
        if self._cut and rng.random() < CUTOUT_SHARE:
            return self.cut_out(rng, self._cut[rng.integers(len(self._cut))], motion)
        rows = self._any if motion.verb == STILL else self._movable
        return self.moved(rng, rows[rng.integers(len(rows))], motion)

    def moved(
        self, rng: np.random.Generator, row: int, motion: Motion, kind: str | None = None
    ) -> DrawnClip:
        """Sticker `row` of the cache moved by `motion`; the rest is drawn from `rng`.

        `kind`: one of `BACKGROUND_KINDS` or "photograph"; None draws it.
        """
        emoji = self.cache.emoji[row]
        background, colour = self._draw_background(rng, kind)
        placement = _draw_placement(rng, emoji, still=motion.verb == STILL)
        layer = place(self.cache.sprites[row][None], placement, self.height_px, self.width_px)[0]
        return DrawnClip(
            describe(rng, emoji.name, motion, colour),
            motion,
            Scene(layer, background),
            emoji.name,
            emoji.hexcode,
            emoji.family,
            _draw_mask(rng),
        )

    def cut_out(self, rng: np.random.Generator, cutout: Cutout, motion: Motion) -> DrawnClip:
        """A part of a photograph moved by `motion`, perhaps mirrored; name and wording are drawn from `rng`."""
        assert self.cutouts is not None
        parts = self.cutouts.layer(cutout)
        if rng.random() < 0.5:
            parts = tuple(part[:, ::-1] for part in parts)
        picture, alpha, background = (
            torch.from_numpy(np.array(part)).float() / 255.0 for part in parts
        )
        layer = torch.cat([picture.permute(2, 0, 1) * alpha, alpha[None]])
        name = str(rng.choice(THINGS))
        if rng.random() < NAME_FROM_STICKERS_SHARE:
            name = self.cache.emoji[self._any[rng.integers(len(self._any))]].name
        return DrawnClip(
            describe(rng, name, motion),
            motion,
            Scene(layer, background),
            name,
            f"{cutout.photograph} {cutout.row}",
            cutout.photograph,
            _draw_mask(rng, may_miss=False),  # nothing else would say which part is meant
        )

    def still_of(self, rng: np.random.Generator, row: int) -> Tensor:
        """Sticker `row` at rest, [H, W, 3] in 0..1; place and background are drawn from `rng`."""
        return self.moved(rng, row, Motion(STILL)).scene.still()[0]

    def _animated_clip(self, rng: np.random.Generator) -> DrawnClip:
        emoji = self.cache.emoji[self._animated[rng.integers(len(self._animated))]]
        background, _ = self._draw_background(rng)
        spare = emoji.clip_frames - SPAN_FRAMES
        start = int(rng.integers(spare + 1)) if spare > 0 else 0
        # A short animation repeats: 94 % of them are loops.
        order = emoji.clip_start + (start + np.arange(SPAN_FRAMES)) % emoji.clip_frames
        tags = rng.permutation(np.asarray(emoji.tags, dtype=object))[: rng.integers(4)]
        placement = _draw_placement(rng, emoji, still=True)
        layer = place(self.cache.clips[order[:1]], placement, self.height_px, self.width_px)[0]
        return DrawnClip(
            ", ".join([emoji.name, *tags, "animated sticker"]),
            None,
            Scene(layer, background),
            emoji.name,
            emoji.hexcode,
            emoji.family,
            animation=self.cache.clips,
            animation_rows=order,
            placement=placement,
        )

    def _draw_motion(self, rng: np.random.Generator) -> Motion:
        verb = self._moving_verbs[rng.integers(len(self._moving_verbs))]
        second = ""
        if rng.random() < TWO_VERBS_SHARE:
            second = self._moving_verbs[rng.integers(len(self._moving_verbs))]
            second = "" if second == verb else second
        if rng.random() < PLAIN_SHARE:
            return Motion(verb, second_verb=second)
        speed, strength = str(rng.choice(list(SPEEDS))), str(rng.choice(list(STRENGTHS)))
        return Motion(verb, speed, strength, second)

    def _draw_background(
        self, rng: np.random.Generator, kind: str | None = None
    ) -> tuple[Tensor, str]:
        if kind is None:
            over_photograph = rng.random() < PHOTOGRAPH_SHARE and self._cut
            kind = "photograph" if over_photograph else str(rng.choice(BACKGROUND_KINDS))
        if kind == "photograph":
            assert self.cutouts is not None
            _, _, background = self.cutouts.layer(self._cut[rng.integers(len(self._cut))])
            return torch.from_numpy(np.array(background)).float() / 255.0, ""
        return draw_background(rng, kind, self.height_px, self.width_px)


def describe(rng: np.random.Generator, name: str, motion: Motion, colour: str = "") -> str:
    """A prompt for a moving object, in one of four wordings; without `colour` the background is not named."""
    verbs = " and ".join(
        SHORT_NAMES.get(verb, verb) if motion.second_verb or rng.random() < 0.25 else verb
        for verb in motion.verbs
    )
    adverbs = [motion.speed, motion.strength]
    moving = " ".join(word for word in [verbs, *adverbs] if word)
    leading = " ".join(word for word in [*adverbs, verbs] if word)
    place_words = f" on a {colour} background" if colour and rng.random() < 0.5 else ""
    wordings = (
        f"a {name} {moving}{place_words}",
        f"{leading} {name}{place_words}",
        f"{name}, {moving}{place_words}",
        moving,
    )
    return wordings[rng.choice(len(wordings), p=(0.4, 0.2, 0.25, 0.15))]


def _draw_placement(rng: np.random.Generator, emoji: Emoji, *, still: bool) -> Placement:
    """Moving stickers stay small enough to remain mostly visible; art cut off by its edge fills the picture."""
    if emoji.touches_edge:
        return Placement(0.0, 0.0, 1.0)
    scale = rng.uniform(0.5, 0.95 if still else 0.75)
    room = 0.5 * (1.0 - scale)
    x, y = rng.uniform(-room, room, 2)
    return Placement(float(x), float(y), float(scale))


def _draw_mask(rng: np.random.Generator, *, may_miss: bool = True) -> str | int:
    draw = rng.random()
    if draw < MISSING_MASK_SHARE:
        return "missing" if may_miss else "true"
    if draw < MISSING_MASK_SHARE + WRONG_MASK_SHARE:
        return int(rng.choice((-3, -2, 2, 3, 5, 8)))
    return "true"


def _spoilt(mask: np.ndarray, kind: str | int) -> np.ndarray:
    """A mask [H, W] bool as `DrawnClip.mask` says; one that would vanish stays."""
    if kind == "true":
        return mask
    if kind == "missing":
        return np.ones_like(mask)
    radius = abs(int(kind))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    change = cv2.dilate if int(kind) > 0 else cv2.erode
    changed = change(mask.astype(np.uint8), kernel) > 0
    return changed if changed.any() else mask
