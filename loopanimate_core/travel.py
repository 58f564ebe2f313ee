"""Prompt travel: prompts at some frames of a loop, and a mixture of two of them at the frames between.

`0: a fox bobbing, 12: a fox swaying` sets the prompt of frames 0 and 12. The frames of a loop are a ring: after
the last key the prompt goes on to the first one, across the seam, so that travelling does not open the loop.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from .errors import LoopAnimateError
from .parsing import plain_text

KEY = re.compile(r"(?:^|[,;\n])\s*(-?\d+(?:\.\d+)?)\s*:(?!\d)")  # not the colon of 16:9
FORM = "'0: a fox bobbing, 12: a fox swaying'"


@dataclass(frozen=True)
class PromptTravel:
    """Prompts on a ring of frames.

    Attributes:
        positions: frame numbers from 0, rising.
        texts: the prompt at each of them.
    """

    positions: tuple[int, ...]
    texts: tuple[str, ...]

    def weights(self, frames: int) -> list[list[float]]:
        """How much each frame of a loop reads of each prompt, `[P][K]`; every frame's weights add up to 1.

        A frame between two keys reads both in proportion to its distance from them, and the last key is
        followed by the first one: w_k(p) = max(0, 1 - d(p, k)), where d is the distance on the ring divided
        by that of the key's neighbour on this side.

        Args:
            frames: P, the frames that play.

        Raises:
            LoopAnimateError: a key after the last frame.
        """
        if self.positions[-1] >= frames:
            raise LoopAnimateError(
                f"the prompt has a key at frame {self.positions[-1]}, but the frames of this loop are 0 to"
                f" {frames - 1}"
            )
        weights = [[0.0] * len(self.positions) for _ in range(frames)]
        around = [*self.positions, self.positions[0] + frames]
        for key, (here, there) in enumerate(pairwise(around)):
            following = (key + 1) % len(self.positions)
            for frame in range(here, there):
                share = (frame - here) / (there - here)
                weights[frame % frames][key] += 1 - share
                weights[frame % frames][following] += share
        return weights


def parse_travel(prompt: str) -> PromptTravel | None:
    """The keys of a prompt such as `0: a fox bobbing, 12: a fox swaying`; None for a plain prompt.

    Keys are separated by commas, semicolons or line breaks, and may be in any order; prompts may contain commas.

    Raises:
        LoopAnimateError: a key that is not a frame, is there twice, or has no prompt; a prompt with keys that
            does not begin with one.
    """
    keys = list(KEY.finditer(prompt))
    if not keys:
        return None
    if lead := prompt[: keys[0].start()].strip(" \t\r\n,;"):
        raise LoopAnimateError(
            f"a prompt with frames must begin with one, as in {FORM}; this one begins with"
            f" {plain_text(lead, 40)!r}"
        )
    ends = [*(key.start() for key in keys[1:]), len(prompt)]
    prompts: dict[int, str] = {}
    for key, end in zip(keys, ends, strict=True):
        number, text = key[1], prompt[key.end() : end].strip(" \t\r\n,;")
        if not number.isdecimal() or len(number) > 9:
            raise LoopAnimateError(
                f"the frames of a prompt must be whole numbers from 0, as in {FORM}; got"
                f" {plain_text(number, 20)}"
            )
        if not text:
            raise LoopAnimateError(
                f"the prompt has no text at frame {number}; write one as in {FORM}"
            )
        if int(number) in prompts:
            raise LoopAnimateError(f"the prompt has two texts at frame {int(number)}")
        prompts[int(number)] = text
    positions = tuple(sorted(prompts))
    return PromptTravel(positions, tuple(prompts[position] for position in positions))


def check_prompt(prompt: str, frames: int) -> None:
    """Raises LoopAnimateError for a prompt whose keys are wrong, or not in a loop of F = `frames` frames."""
    if (travel := parse_travel(prompt)) is not None:
        travel.weights(frames - 1)
