"""All steps of curation applied to one clip: what it scores, before any limit is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..config import MeasureConfig
from ..data.readers.rows import Row, pictures_in
from ..data.source import read_masks
from ..data.video.bad_clip import BadClip
from ..data.video.facts import VideoFacts, resampled_counts, source_frames
from ..data.video.frames import read_pictures, read_video
from ..data.video.scan import scan_video
from .analysis import Analysis, analyse
from .measures.captions import named_thing
from .measures.likeness import difference_hash, loop_length
from .measures.masks import crop, describe_mask, find_object
from .measures.motion import moving_share, resting_edges, shake
from .measures.tracking import follow, iou
from .windows import seconds_of, window_starts


@dataclass(frozen=True)
class Scores:
    """What was measured of a clip; None: not, because the clip is too short or too long. A column of the table each.

    Attributes:
        frames: number that decode, at the rate of the measurement; the others count in these frames.
        fps: of the file; 0 for pictures.
        damaged: whether decoding stopped before the end of the file.
        changes: colour changes from frame to frame, those above 0.1 as (frame, change).
        largest_change: of the colours from one frame to the next, 0..1.
        motion, shake, overlay: see `measures/motion.py`.
        object_by: `given` masks of the data set, `network`, `bundled network`, or `grabcut`.
        object_share, object_share_turn: of the first and of the turning frame, 0..1.
        main_part: the smaller share of the two masks in their largest connected part.
        presence: the least that is left of the object anywhere in the clip, 0..1.
        agreement: IoU of the object carried to the turning frame by flow and the one found there.
        object_motion, other_motion, camera_motion: per half stride, as a share of the diagonal.
        thing: what the caption names, of the list of nouns; "" for nothing.
        clip_score: cosine of the object's crop and the caption, if there is a CLIP model.
        hash_first, hash_turn: perceptual hashes of both frames, 16 hexadecimal digits.
        loop_frames: frames after which the clip is back where it began; 0 for no loop.
        loop_end_s: `end_s` of a row that has one round of the loop alone.
        windows: the same of parts of the clip that are as long as a training clip. Not a column.
    """

    frames: int
    width_px: int
    height_px: int
    fps: float
    damaged: bool
    changes: tuple[tuple[int, float], ...] = ()
    largest_change: float | None = None
    motion: float | None = None
    shake: float | None = None
    overlay: float | None = None
    object_by: str | None = None
    object_share: float | None = None
    object_share_turn: float | None = None
    main_part: float | None = None
    presence: float | None = None
    agreement: float | None = None
    object_motion: float | None = None
    other_motion: float | None = None
    camera_motion: float | None = None
    thing: str | None = None
    clip_score: float | None = None
    hash_first: str | None = None
    hash_turn: str | None = None
    loop_frames: int | None = None
    loop_end_s: float | None = None
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class Window:
    """A part of a clip.

    Attributes:
        start: number of its first frame; it has as many as its scores say.
        start_s, end_s: the same in the file, for a row that has this part alone.
    """

    start: int
    start_s: float
    end_s: float
    scores: Scores


@dataclass(frozen=True)
class Seen:
    """The first and the turning frame of a clip.

    Attributes:
        facts: what decoding showed.
        count: frames at the rate of the measurement.
        turn: number of the turning frame.
        frames: [2, H, W, 3] uint8.
        masks: [2, H, W] bool; ones for clips that are too short or too long to be measured.
        object_by: who found the masks; None for those clips.
    """

    facts: VideoFacts
    count: int
    turn: int
    frames: np.ndarray
    masks: np.ndarray
    object_by: str | None


_NOTED_CHANGE = 0.1  # smaller ones are not kept


def look_at(row: Row, settings: MeasureConfig) -> Seen:
    """Decode a clip, and find the object in its first and in its turning frame.

    Raises:
        BadClip: it cannot be decoded.
        LoopAnimateError: the salient-object network cannot be used.
    """
    facts = _facts(row)
    count = int(resampled_counts(facts.frames, facts.fps, settings.fps))
    turn = min(settings.span_frames, count) - 1
    ends = _read(row, facts, settings, [0, turn], settings.mask_px)
    if not settings.span_frames <= count <= settings.most_frames:
        return Seen(facts, count, turn, ends, np.ones(ends.shape[:3], bool), None)
    masks, object_by = _masks(row, facts, settings, ends)
    return Seen(facts, count, turn, ends, masks, object_by)


def measure(row: Row, settings: MeasureConfig) -> Scores:
    """Measure a clip.

    Raises:
        BadClip: it cannot be decoded.
        LoopAnimateError: the salient-object network or the CLIP model cannot be used.
    """
    seen = look_at(row, settings)
    facts = seen.facts
    scores = Scores(seen.count, facts.width_px, facts.height_px, facts.fps, facts.damaged)
    if seen.object_by is None:
        return scores
    frames = _read(row, facts, settings, range(seen.count), settings.analysis_px)
    found = analyse(frames, max(1, settings.stride // 2), settings.raft)
    scores = _scored(scores, found, seen, row.caption, settings)
    looped, windows = loop_length(found.grey), _windows(row, found, seen, scores, settings)
    end_s = None
    if looped and facts.fps > 0 and not facts.counted:
        end_s = seconds_of(facts, 0, min(looped, seen.count), row.start_s, settings.fps)[1]
    return replace(scores, loop_frames=looped, loop_end_s=end_s, windows=windows)


def _scored(
    scores: Scores, found: Analysis, seen: Seen, caption: str, settings: MeasureConfig
) -> Scores:
    """Everything that is measured of a clip or of a window of it."""
    scores = _with_motion(scores, found, settings.stride)
    scores = _with_object(scores, found, seen)
    score = None
    if settings.clip is not None:
        from .measures.clip_match import clip_score

        score = clip_score(crop(seen.frames[0], seen.masks[0]), caption, settings.clip)
    return replace(
        scores,
        object_by=seen.object_by,
        thing=named_thing(caption),
        clip_score=score,
        hash_first=f"{difference_hash(seen.frames[0]):016x}",
        hash_turn=f"{difference_hash(seen.frames[1]):016x}",
    )


def _windows(
    row: Row, analysis: Analysis, seen: Seen, scores: Scores, settings: MeasureConfig
) -> tuple[Window, ...]:
    """The windows of a clip. None where a part cannot be named by its times, or the data set has given masks."""
    facts, span = seen.facts, settings.span_frames
    starts = window_starts(seen.count, span, settings.windows, analysis.every)
    if len(starts) < 2 or row.masks is not None or facts.counted or facts.fps == 0:
        return ()
    numbers = sorted({end for start in starts for end in (start, start + span - 1)})
    pictures = _read(row, facts, settings, numbers, settings.mask_px)
    masks = dict(
        zip((0, seen.turn), seen.masks, strict=True)
    )  # those of the first window are known
    for number, picture in zip(numbers, pictures, strict=True):
        if number not in masks:
            masks[number] = _found_masks(picture[None], settings)[0][0]
    places = {number: place for place, number in enumerate(numbers)}
    found = []
    for start in starts:
        ends = [start, start + span - 1]
        shown = pictures[[places[end] for end in ends]]
        both = np.stack([masks[end] for end in ends])
        part = replace(seen, count=span, turn=span - 1, frames=shown, masks=both)
        plain = Scores(span, scores.width_px, scores.height_px, scores.fps, damaged=False)
        times_s = seconds_of(facts, start, start + span, row.start_s, settings.fps)
        inside = analysis.part(start, span)
        found.append(Window(start, *times_s, _scored(plain, inside, part, row.caption, settings)))
    return tuple(found)


def _facts(row: Row) -> VideoFacts:
    if not row.media.path.is_dir():
        return scan_video(row.media, row.start_s, row.end_s)
    paths = pictures_in(row.media.path)
    if not paths:
        raise BadClip(f"{row.media.path} holds no pictures")
    height, width = read_pictures(paths, [0], "RGB").shape[1:3]
    return VideoFacts(len(paths), width, height, ticks_per_frame=0.0)


def _read(
    row: Row, facts: VideoFacts, settings: MeasureConfig, indices: Sequence[int], longest_px: int
) -> np.ndarray:
    """Frames [n, h, w, 3] of the clip, at most `longest_px` wide and high."""
    numbers = source_frames(facts, indices, settings.fps).tolist()
    if not row.media.path.is_dir():
        return read_video(row.media, numbers, facts, longest_px=longest_px)
    paths = pictures_in(row.media.path)
    return np.stack([_shrunk(read_pictures(paths, [n], "RGB")[0], longest_px) for n in numbers])


def _shrunk(picture: np.ndarray, longest_px: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _masks(
    row: Row, facts: VideoFacts, settings: MeasureConfig, ends: np.ndarray
) -> tuple[np.ndarray, str]:
    """Masks [2, H, W] bool of the first and the turning frame, and who found them."""
    if row.masks is not None:
        turn = min(settings.span_frames, facts.frames) - 1
        numbers = source_frames(facts, [0, turn], settings.fps).tolist()
        return _resized(read_masks(row.masks, numbers) > 127, ends.shape[1:3]), "given"
    return _found_masks(ends, settings)


def _found_masks(pictures: np.ndarray, settings: MeasureConfig) -> tuple[np.ndarray, str]:
    """Masks [n, H, W] bool of the salient objects, and what found them."""
    weights = settings.object == "network"
    found = [find_object(picture, settings.network, weights) for picture in pictures]
    name = "network" if settings.network else "bundled network"
    return np.stack(found), name if weights else "grabcut"


def _resized(masks: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    height, width = size
    shrunk = [
        cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        for mask in masks
    ]
    return np.stack(shrunk) > 0.5


def _with_motion(scores: Scores, found: Analysis, stride: int) -> Scores:
    grey, changes = found.grey, found.changes
    noted = np.flatnonzero(changes > _NOTED_CHANGE)
    return replace(
        scores,
        changes=tuple((int(n) + 1, round(float(changes[n]), 3)) for n in noted),
        largest_change=float(changes.max()),
        motion=moving_share(grey, stride),
        shake=shake(found.shifts, max(grey.shape[1:])),
        overlay=resting_edges(grey),
    )


def _with_object(scores: Scores, found: Analysis, seen: Seen) -> Scores:
    frames, every = found.frames, found.every
    facts = [describe_mask(mask) for mask in seen.masks]
    small = _resized(seen.masks, frames.shape[1:3])
    track = follow(frames[::every], small[0], found.flows)
    return replace(
        scores,
        object_share=facts[0].share,
        object_share_turn=facts[1].share,
        main_part=min(one.main_part for one in facts),
        presence=float(track.presence.min()),
        agreement=iou(track.masks[seen.turn // every], small[1]),
        object_motion=track.object_motion,
        other_motion=track.other_motion,
        camera_motion=track.background_motion,
    )
