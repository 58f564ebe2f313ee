"""Scores against limits: whether a clip is kept, and every reason against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..config import LimitsConfig, MeasureConfig
from .measure import Scores, Window

NO_CAPTION = "no caption"
DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Fault:
    """A limit that a clip breaks: the reason in a few words, and a sentence with the numbers."""

    reason: str
    detail: str


def faults(
    scores: Scores, caption: str, limits: LimitsConfig, measured: MeasureConfig, uncaptioned: str
) -> list[Fault]:
    """Every limit that a clip breaks, the most basic first; none means that it is kept.

    Args:
        uncaptioned: `skip` or `keep`, as `data.uncaptioned`.
    """
    found = list(_of_the_file(scores, limits, measured))
    if not caption and uncaptioned == "skip":
        found.append(Fault(NO_CAPTION, "it has no caption (data.uncaptioned: keep)"))
    if scores.largest_change is not None:  # it was measured
        found += _of_the_motion(scores, limits)
        found += _of_the_object(scores, limits)
        if limits.loops == "only" and not scores.loop_frames:
            found.append(Fault("no loop", "it never comes back to its first frame"))
        found += _of_the_caption(scores, caption, limits)
    return found


def best_part(windows: Sequence[Window], is_good: Callable[[Scores], bool]) -> Window | None:
    """The longest part of a clip that good windows cover without a gap; None if no window is good.

    Its scores are those of its first window, with the number of its frames.
    """
    runs: list[list[Window]] = []
    last: Window | None = None
    for window in windows:
        if not is_good(window.scores):
            last = None
            continue
        if last is not None and window.start <= last.start + last.scores.frames:
            runs[-1].append(window)
        else:
            runs.append([window])
        last = window
    if not runs:
        return None
    run = max(runs, key=lambda one: one[-1].start - one[0].start)  # the first of equals
    frames = run[-1].start + run[-1].scores.frames - run[0].start
    return replace(run[0], end_s=run[-1].end_s, scores=replace(run[0].scores, frames=frames))


def cuts(scores: Scores, limits: LimitsConfig) -> list[int]:
    """Frames that begin a new shot; limits below 0.1 do not find more, because smaller changes are not kept."""
    return [frame for frame, change in scores.changes if change > limits.cut]


def _of_the_file(scores: Scores, limits: LimitsConfig, measured: MeasureConfig) -> Iterator[Fault]:
    span, most = measured.span_frames, measured.most_frames
    if scores.frames < span:
        yield Fault("too short", f"{scores.frames} frames, a training clip covers {span}")
    if scores.frames > most:
        yield Fault("too long", f"{scores.frames} frames, measure.most_frames is {most}")
    shortest = min(scores.width_px, scores.height_px)
    if shortest < limits.shortest_side_px:
        yield Fault(
            "too small", _below("shorter side in pixels", shortest, limits.shortest_side_px)
        )
    if scores.damaged and limits.damaged == "reject":
        yield Fault("damaged", f"decoding stopped after {scores.frames} frames")


def _of_the_motion(scores: Scores, limits: LimitsConfig) -> Iterator[Fault]:
    if found := cuts(scores, limits):
        more = ", …" if len(found) > 5 else ""
        yield Fault("cuts", f"{len(found)}, at frames {', '.join(map(str, found[:5]))}{more}")
    if (value := _known(scores.motion)) < limits.motion:
        yield Fault("static", _below("share that moves", value, limits.motion))
    if (value := _known(scores.shake)) > limits.shake:
        yield Fault("shaky", _above("shake", value, limits.shake))
    if (value := _known(scores.overlay)) > limits.overlay:
        yield Fault("text or logo", _above("share of resting edges", value, limits.overlay))


def _of_the_object(scores: Scores, limits: LimitsConfig) -> Iterator[Fault]:
    shares = _known(scores.object_share), _known(scores.object_share_turn)
    least, most = limits.object_share_least, limits.object_share_most
    # The whole picture is how "nothing stands out" is written.
    if min(shares) < least or max(shares) > most:
        shown = " and ".join(f"{share:.3g}" for share in shares)
        yield Fault("no object", f"it covers {shown} of both frames, not {least:g} to {most:g}")
    if (value := _known(scores.main_part)) < limits.main_part:
        yield Fault("several objects", _below("largest part", value, limits.main_part))
    if (value := _known(scores.presence)) < limits.presence:
        yield Fault("object gone", _below("presence", value, limits.presence))
    if (value := _known(scores.agreement)) < limits.agreement:
        yield Fault("another object", _below("agreement", value, limits.agreement))
    if (value := _known(scores.object_motion)) < limits.object_motion:
        yield Fault("object rests", _below("motion of the object", value, limits.object_motion))


def _of_the_caption(scores: Scores, caption: str, limits: LimitsConfig) -> Iterator[Fault]:
    if not caption:
        return
    if scores.clip_score is not None:
        if scores.clip_score < limits.clip_score:
            yield Fault("other caption", _below("CLIP score", scores.clip_score, limits.clip_score))
    elif limits.caption == "noun" and not scores.thing:
        yield Fault("caption names no thing", f"none of the listed nouns is in {caption!r}")


def _known(value: float | None) -> float:
    assert value is not None  # scores are measured together
    return value


def _below(what: str, value: float, limit: float) -> str:
    return f"{what} {value:.3g} is below {limit:g}"


def _above(what: str, value: float, limit: float) -> str:
    return f"{what} {value:.3g} is above {limit:g}"
