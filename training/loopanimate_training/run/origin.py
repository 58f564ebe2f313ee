"""What a run has to find again to go on as the same run: the data, and the weights that it does not train.

A checkpoint keeps a hash of both, and every process of a run has to have found the same.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from loopanimate_core.bundle import Bundle
from loopanimate_core.errors import LoopAnimateError

from ..data.clip_encoder import tensors_hash
from ..data.latent_cache import LatentCache
from ..model.start import named_parameters

FROZEN, DATA = "frozen", "data"
_MEANING = {
    FROZEN: "the weights that it does not train have changed since (model.start is another file, or a run "
    "that has gone on)",
    DATA: "its clips or captions have changed since",
}


def origin_of(bundle: Bundle, trained: Collection[str], store: LatentCache) -> dict[str, str]:
    """Hashes of the frozen weights and of the data; before anything is trained, moved or rounded."""
    return {FROZEN: frozen_hash(bundle, trained), DATA: store.source.fingerprint()}


def frozen_hash(bundle: Bundle, trained: Collection[str]) -> str:
    """A hash of all weights that take part and are not in `trained`."""
    rest = {f"vae.{n}": p for n, p in bundle.vae.named_parameters()}
    rest |= {f"image_encoder.{n}": p for n, p in bundle.image_encoder.named_parameters()}
    present = sorted((named_parameters(bundle) | rest).items())
    return tensors_hash((name, tensor) for name, tensor in present if name not in trained)


def require_same_origin(old: Mapping[str, str], new: Mapping[str, str], run: Path) -> None:
    """Refuse to go on with a run from something else; checkpoints of older versions do not say from what.

    Raises:
        LoopAnimateError: data or frozen weights are not those of the checkpoint.
    """
    for part, meaning in _MEANING.items():
        if old.get(part, new[part]) != new[part]:
            raise LoopAnimateError(
                f"{run} cannot go on as the same run: {meaning}; restore them, choose another `out`, or say "
                "--allow-change"
            )


def require_agreement(accelerator: Accelerator, step: int, origin: Mapping[str, str]) -> None:
    """Have all processes compare where they start; a folder that only some of them see is no shared one.

    Raises:
        LoopAnimateError: they differ, on every process.
    """
    found = gather_object([{"step": step, **origin}])
    for what, values in ((key, [one[key] for one in found]) for key in found[0]):
        if len(set(values)) > 1:
            raise LoopAnimateError(
                f"the processes do not agree on the {'newest checkpoint' if what == 'step' else what}"
                f" ({', '.join(map(str, values))}); `out`, `model.start` and `data.path` must be the same folders on"
                " all machines"
            )
