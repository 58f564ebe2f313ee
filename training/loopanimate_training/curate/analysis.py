"""What is computed once from the frames of a clip, and shared by the measures of the whole and of its windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .measures.cuts import colour_changes
from .measures.motion import camera_shifts, to_grey
from .measures.raft import raft_flows
from .measures.tracking import backward_flows


@dataclass(frozen=True)
class Analysis:
    """Frames and what happens between them.

    Attributes:
        frames: [n, h, w, 3] uint8.
        grey: [n, h, w] uint8.
        changes: [n-1], of the colours from frame to frame.
        shifts: [n-1, 2], of the whole picture in pixels.
        every: frames between two flow fields.
        flows: fields [h, w, 2] from frame (k+1)·every back to frame k·every.
    """

    frames: np.ndarray
    grey: np.ndarray
    changes: np.ndarray
    shifts: np.ndarray
    every: int
    flows: Sequence[np.ndarray]

    def part(self, start: int, count: int) -> Analysis:
        """The same of `count` frames from `start`, a multiple of `every`, on."""
        end, first = start + count, start // self.every
        return Analysis(
            self.frames[start:end],
            self.grey[start:end],
            self.changes[start : end - 1],
            self.shifts[start : end - 1],
            self.every,
            self.flows[first : first + (count - 1) // self.every],
        )


def analyse(frames: np.ndarray, every: int, raft: Path | None = None) -> Analysis:
    """Everything that neighbouring frames [n, h, w, 3] tell; most of the time of a curation goes here.

    Args:
        raft: weights of RAFT; None for OpenCV's DIS flow.
    """
    grey = to_grey(frames)
    flows = backward_flows(grey[::every]) if raft is None else raft_flows(frames[::every], raft)
    return Analysis(frames, grey, colour_changes(frames), camera_shifts(grey), every, flows)
