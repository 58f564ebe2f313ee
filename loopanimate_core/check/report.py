"""The report of a loop check: what was measured, the verdict, and both in words."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

REASONS = {
    "frozen": "nothing moves",
    "jump": "the picture jumps at the seam",
    "held_frame": "a frame is held at the seam (drop the last frame if it repeats the first)",
    "stall": "the motion stops at the seam",
    "colour_drift": "the colours drift over the clip and jump back at the seam",
    "ping_pong": "the clip turns around at full speed and plays backwards",
    "keyframe_pop": "the encoded picture changes visibly where the file starts again",
}


@dataclass(frozen=True)
class LoopReport:
    """What was measured, and the verdict. Ratios are None for a clip without motion.

    Attributes:
        frames: frames that play (a dropped duplicate is not counted).
        fps, duration_s: playing speed and length, None when no fps was given.
        dropped_duplicate: the last frame repeated the first and was not measured.
        period_frames: frames after which the clip repeats; `frames` if it contains the loop once.
        steps: mean absolute difference from every frame to the next, 0..255; the last one is the seam.
        motion: median step without the seam. max_distance: largest distance to frame 0.
        ssim_adjacent: mean SSIM of neighbours, the paper's "Motion" (higher = less motion).
        seam_ratio: seam step over median step; two-sided, 1 is ideal, 0 is a held frame.
        seam_jump: seam step over the largest of the four around it, on shrunk frames.
        seam_pop: the same at full size.
        seam_acceleration: largest change of motion next to the seam over the median one.
        stall_frames: number of steps without motion at the seam.
        colour_step, colour_drift: CIE76 difference of the mean colour across the seam, and its linear
            trend over the clip.
        mirror_error: distance of the frames to their best mirror image in time, over the median step.
        mirror_attack: how abruptly the motion turns around there (1 = at full speed).
        mse_f0: squared error of frame 0 to the reference picture, 0..255 squared; paper's MSE_F0.
        clip_i: mean cosine of frames to the reference. fc: of neighbours. loop_c: of first and last.
        passed, reasons, summary: the verdict; reasons are keys of `REASONS`.
    """

    frames: int
    fps: float | None
    dropped_duplicate: bool
    period_frames: int
    steps: tuple[float, ...]
    motion: float
    max_distance: float
    ssim_adjacent: float
    seam_ratio: float | None
    seam_jump: float | None
    seam_pop: float | None
    seam_acceleration: float | None
    stall_frames: int
    colour_step: float
    colour_drift: float
    mirror_error: float | None
    mirror_attack: float | None
    mse_f0: float | None
    clip_i: float | None
    fc: float | None
    loop_c: float | None
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.reasons

    @property
    def duration_s(self) -> float | None:
        return self.frames / self.fps if self.fps else None

    @property
    def repeats(self) -> int:
        return self.frames // self.period_frames

    @property
    def verdict(self) -> str:
        """`seamless`, or the reasons in a few words."""
        return ", ".join(reason.replace("_", " ") for reason in self.reasons) or "seamless"

    @property
    def summary(self) -> str:
        """The verdict as plain sentences."""
        held = f"{self.frames} frames"
        if self.repeats > 1:
            held += f" (a loop of {self.period_frames}, {self.repeats} times)"
        if not self.reasons:
            # Not over the median: a swing is fast in its middle, and a loop may begin there.
            beside = self.seam_jump
            seam = "" if beside is None else f", {beside:.2f} times those beside it"
            return (
                f"Seamless: {held}, seam step {self.steps[-1]:.2f} of 255{seam}, largest distance to"
                f" the first frame {self.max_distance:.1f}."
            )
        return f"Not seamless, {held}: {'; '.join(REASONS[reason] for reason in self.reasons)}."

    def to_dict(self) -> dict[str, object]:
        """All values, ready for JSON; None where something could not be measured."""
        report = dataclasses.asdict(self)
        report.update(
            steps=list(self.steps),
            reasons=list(self.reasons),
            passed=self.passed,
            duration_s=self.duration_s,
            repeats=self.repeats,
            verdict=self.verdict,
            summary=self.summary,
        )
        return report
