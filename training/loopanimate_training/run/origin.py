"""What a run must find unchanged when it resumes: its data, and the weights that it does not train.

A checkpoint keeps a hash of each, and all processes of a run must find the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from loopanimate_core.bundle import Bundle
from loopanimate_core.errors import LoopAnimateError

from ..data.clip_encoder import weights_hash
from ..data.object_masks import ObjectFinder
from ..data.source import ClipSource
from ..model.weights import FROZEN, frozen_hash

DATA, TEACHER, MASKS = "data", "teacher", "masks"
_CHANGES = {
    FROZEN: "the weights that it does not train have changed since (model.start is another file, or a run that has "
    "trained further)",
    DATA: "its clips or captions have changed since",
    TEACHER: "its teacher has changed since",
    MASKS: "what finds the object in clips without masks has changed since (data.saliency)",
}


def origin_of(
    bundle: Bundle,
    trained: Collection[str],
    source: ClipSource,
    teacher: nn.Module | None = None,
    finder: ObjectFinder | None = None,
) -> dict[str, str]:
    """Hashes of the frozen weights, of the data, of the teacher and of what finds objects; call it before weights
    are trained, moved or rounded."""
    origin = {FROZEN: frozen_hash(bundle, trained), DATA: source.fingerprint()}
    if teacher is not None:
        origin[TEACHER] = weights_hash(teacher)
    if finder is not None and source.lacks_masks:
        origin[MASKS] = finder.fingerprint
    return origin


def require_same_origin(old: Mapping[str, str], new: Mapping[str, str], run: Path) -> None:
    """Check that a run resumes from what it started from; checkpoints of early versions hold no hashes.

    What finds objects is the exception: `new` names it only if it may not be what an early version used.

    Raises:
        LoopAnimateError: data or frozen weights are not those of the checkpoint.
    """
    for part in new:
        unnamed = "" if part == MASKS else new[part]
        if old.get(part, unnamed) != new[part]:
            raise LoopAnimateError(
                f"{run} cannot resume as the same run: {_CHANGES[part]}; restore them, choose another `out`, or pass "
                "--allow-change"
            )


def require_agreement(accelerator: Accelerator, step: int, origin: Mapping[str, str]) -> None:
    """Check that all processes start from the same checkpoint, data and weights.

    They differ where a folder that should be shared is not.

    Raises:
        LoopAnimateError: they differ; on every process.
    """
    found = gather_object([{"step": step, **origin}])
    for what, values in ((key, [one[key] for one in found]) for key in found[0]):
        if len(set(values)) > 1:
            raise LoopAnimateError(
                f"the processes do not agree on the {'newest checkpoint' if what == 'step' else what}"
                f" ({', '.join(map(str, values))}); `out`, `model.start` and `data.path` must be the same folders on"
                " all machines"
            )
