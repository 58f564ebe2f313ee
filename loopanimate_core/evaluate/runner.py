"""The evaluation itself: every system on every picture, one after the other, resumable at any point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import LoopAnimateError
from ..picture.images import load_picture
from .cases import Case
from .encoder import Encoder
from .figures import MEASURES, measure_clip
from .store import Store, file_hash, key_of
from .systems import System, finished_clip

LOOPS = "loops"


@dataclass(frozen=True)
class Row:
    """One loop, or the reason why there is none.

    Attributes:
        label: the system, with the kind where it has several.
        file: the written loop, relative to the evaluation's folder.
        clip: the key of its frames in the store.
        figures: see `figures.measure_clip`; empty for a loop that failed.
    """

    system: str
    kind: str
    label: str
    picture: str
    prompt: str
    reason: str = ""
    file: str = ""
    clip: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def made(self) -> bool:
        return not self.reason

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def evaluate(
    cases: Sequence[Case],
    systems: Sequence[System],
    encoder: Encoder,
    out: Path,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Make and measure every loop that is not finished yet.

    Args:
        out: the folder of the evaluation; loops are written to `loops/SYSTEM/PICTURE.mp4` in it.
        on_row: called after each loop.

    Returns:
        A row for each system, kind and picture, in this order.

    Raises:
        LoopAnimateError: two systems have the same name, or the folder cannot be written.
    """
    names = [system.name for system in systems]
    if twice := {name for name in names if names.count(name) > 1}:
        raise LoopAnimateError(f"there are several systems named {min(twice)}; NAME=… renames one")
    store, rows = Store(out), []
    for system in systems:
        for case in cases:
            for kind in system.kinds:
                rows.append(_row(system, kind, case, encoder, out, store))
                on_row(rows[-1])
        system.close()
    order = {
        (system.name, kind): number
        for number, (system, kind) in enumerate((s, k) for s in systems for k in s.kinds)
    }
    return sorted(rows, key=lambda row: order[row.system, row.kind])


def _row(system: System, kind: str, case: Case, encoder: Encoder, out: Path, store: Store) -> Row:
    label = system.name if len(system.kinds) == 1 else f"{system.name} ({kind})"
    file = Path(LOOPS) / label / f"{case.name}.mp4"
    row: dict[str, Any] = {
        "system": system.name,
        "kind": kind,
        "label": label,
        "picture": case.name,
        "prompt": case.prompt,
    }
    try:
        clip_key, figures = _finished(system, kind, case, encoder, out / file, store)
    except (
        Exception
    ) as error:  # whatever a model, a decoder or a device may raise: one loop, one reason
        return Row(**row, reason=_reason(error))
    return Row(**row, file=file.as_posix(), clip=clip_key, figures=figures)


def _finished(
    system: System, kind: str, case: Case, encoder: Encoder, file: Path, store: Store
) -> tuple[str, dict[str, Any]]:
    """The key of a loop's frames, and its figures: from the store, or made now."""
    identity = system.identity(case, kind)
    clip_key = key_of(identity)
    figures_key = key_of({"clip": clip_key, "encoder": encoder.identity, "measures": MEASURES})
    figures = store.figures(figures_key)
    if figures is None or not file.is_file() or figures.get("file_sha256") != file_hash(file):
        clip = finished_clip(store, system, case, kind)
        file.parent.mkdir(parents=True, exist_ok=True)
        figures = measure_clip(clip, load_picture(case.picture), encoder, file)
        figures["file_sha256"] = file_hash(file)
        store.keep_figures(figures_key, figures)
    return clip_key, figures


def _reason(error: Exception) -> str:
    words = " ".join(str(error).split()) or "no reason given"
    return words if isinstance(error, LoopAnimateError) else f"{type(error).__name__}: {words}"
