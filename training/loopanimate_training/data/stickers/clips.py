"""Sticker clips: each is a pure function of (cache, split, size, seed, clip id)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .emoji import Emoji, EmojiCache
from .motion import CORE_VERBS, FPS, SPAN_FRAMES, SPEEDS, STILL, STRENGTHS, Motion, Pose
from .render import (
    BACKGROUND_KINDS,
    Placement,
    compose,
    draw_background,
    premultiplied,
    render_clip,
)

SPLITS = ("train", "held_out")
ANIMATED_SHARE, STILL_SHARE = 0.15, 0.15  # of all clips; in the others the renderer moves a still
PLAIN_SHARE = 0.6  # of the moved stills: default speed and strength


@dataclass(frozen=True)
class StickerClip:
    """One clip and its caption. Pixels are drawn on demand, and only the frames asked for.

    Attributes:
        motion: how the renderer moves the sticker; None for an animated sticker, whose caption does not say
            how it moves.
        background: `[H, W, 3]` in 0..1.
        sprite: `[S, S, 4]` uint8, the still that the renderer moves.
        animation, animation_rows: `[T, S, S, 4]` uint8 frames, and which of them the clip shows; None for a
            moved still.
    """

    caption: str
    motion: Motion | None
    emoji: Emoji
    placement: Placement
    background: Tensor = field(repr=False)
    size_px: int = 96
    fps: float = FPS
    frame_count: int = SPAN_FRAMES
    sprite: np.ndarray = field(repr=False, default_factory=lambda: np.zeros((1, 1, 4), np.uint8))
    animation: np.ndarray | None = field(repr=False, default=None)
    animation_rows: np.ndarray | None = field(repr=False, default=None)

    @property
    def verb(self) -> str:
        """The verb of the motion; "" for an animated sticker."""
        return self.motion.verb if self.motion else ""

    def draw(self, indices: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Frames [n, H, W, 3] in 0..1 and masks [n, H, W] bool of the source frames `indices` (default: all)."""
        wanted = list(range(self.frame_count)) if indices is None else list(indices)
        if self.animation is None or self.animation_rows is None:
            assert self.motion is not None
            times_s = torch.tensor(wanted, dtype=torch.float32) / self.fps
            return render_clip(
                self.sprite, self.motion, times_s, self.background, self.placement, self.size_px
            )
        side_px = max(8, round(self.placement.scale * self.size_px))
        planes = premultiplied(self.animation[self.animation_rows[wanted]], side_px)
        rest = torch.zeros(len(wanted))
        return compose(
            planes, Pose(rest, rest, rest, rest), self.background, self.placement, self.size_px
        )

    def frames(self, indices: Sequence[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The same with frames as uint8: [n, H, W, 3], and masks [n, H, W] bool."""
        frames, masks = self.draw(indices)
        return frames.mul(255.0).round_().clamp_(0, 255).byte().numpy(), masks.numpy()


class StickerClips:
    """Endless clips of one split; `clips[clip_id]` depends on the cache and the seed alone."""

    def __init__(
        self,
        cache: EmojiCache,
        split: str = "train",
        size_px: int = 96,
        seed: int = 0,
        verbs: Sequence[str] = CORE_VERBS,
    ) -> None:
        held_out = SPLITS.index(split) == 1
        self.cache, self.size_px, self.seed = cache, size_px, seed
        self._split_number = int(held_out)
        self._any = cache.select(held_out)
        self._movable = cache.select(held_out, movable=True)
        self._animated = cache.select(held_out, animated=True)
        self._moving_verbs = [verb for verb in verbs if verb != STILL]

    def __getitem__(self, clip_id: int) -> StickerClip:
        rng = np.random.default_rng((self.seed, self._split_number, clip_id))
        kind = rng.random()
        if kind < ANIMATED_SHARE and self._animated:
            return self._animated_clip(rng)
        if kind > 1.0 - STILL_SHARE:
            return self._still_clip(rng)
        return self.moved(
            rng, self._movable[rng.integers(len(self._movable))], self._draw_motion(rng)
        )

    def moved(self, rng: np.random.Generator, row: int, motion: Motion) -> StickerClip:
        """Sticker `row` of the cache moved by `motion`; place, background and wording are drawn from `rng`."""
        emoji = self.cache.emoji[row]
        background, colour = self._draw_background(rng)
        caption = describe(rng, emoji.name, motion, colour)
        placement = _draw_placement(rng, emoji, still=motion.verb == STILL)
        return StickerClip(
            caption,
            motion,
            emoji,
            placement,
            background,
            self.size_px,
            sprite=self.cache.sprites[row],
        )

    def still_of(self, rng: np.random.Generator, row: int) -> Tensor:
        """Sticker `row` at rest, [H, W, 3] in 0..1; place and background are drawn from `rng`."""
        return self.moved(rng, row, Motion(STILL)).draw([0])[0][0]

    def _still_clip(self, rng: np.random.Generator) -> StickerClip:
        return self.moved(rng, self._any[rng.integers(len(self._any))], Motion(STILL))

    def _animated_clip(self, rng: np.random.Generator) -> StickerClip:
        emoji = self.cache.emoji[self._animated[rng.integers(len(self._animated))]]
        background, _ = self._draw_background(rng)
        spare = emoji.clip_frames - SPAN_FRAMES
        start = int(rng.integers(spare + 1)) if spare > 0 else 0
        # A short animation repeats: 94 % of them are loops.
        order = emoji.clip_start + (start + np.arange(SPAN_FRAMES)) % emoji.clip_frames
        tags = rng.permutation(np.asarray(emoji.tags, dtype=object))[: rng.integers(4)]
        caption = ", ".join([emoji.name, *tags, "animated sticker"])
        placement = _draw_placement(rng, emoji, still=True)
        return StickerClip(
            caption,
            None,
            emoji,
            placement,
            background,
            self.size_px,
            animation=self.cache.clips,
            animation_rows=order,
        )

    def _draw_motion(self, rng: np.random.Generator) -> Motion:
        verb = self._moving_verbs[rng.integers(len(self._moving_verbs))]
        if rng.random() < PLAIN_SHARE:
            return Motion(verb)
        return Motion(verb, rng.choice(list(SPEEDS)), rng.choice(list(STRENGTHS)))

    def _draw_background(self, rng: np.random.Generator) -> tuple[Tensor, str]:
        return draw_background(
            rng, BACKGROUND_KINDS[rng.integers(len(BACKGROUND_KINDS))], self.size_px
        )


def describe(rng: np.random.Generator, name: str, motion: Motion, colour: str = "") -> str:
    """A prompt for a moving sticker, in one of four wordings; without `colour` the background is not named."""
    adverbs = [motion.speed, motion.strength]
    moving = " ".join(word for word in [motion.verb, *adverbs] if word)
    leading = " ".join(word for word in [*adverbs, motion.verb] if word)
    place = f" on a {colour} background" if colour and rng.random() < 0.5 else ""
    wordings = (
        f"a {name} {moving}{place}",
        f"{leading} {name}{place}",
        f"{name}, {moving}{place}",
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
