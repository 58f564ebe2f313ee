"""Which photographs and photographic cut-outs are held out: the same ones for everything that is trained on them."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePath

HELD_OUT_ONE_IN = 4  # so that more than 40 photographs with a clear object are held out

_SAME_SUBJECT = {
    "neuschwanstein": "neuschwansteincastle",
    "operasidney": "operahouse",
    "qutubminar": "kutubminar",
    "toureiffel": "eiffeltower",
    "tower": "eiffeltower",
}


def subject_of(file: str) -> str:
    """What a prepared picture shows, by its file name: two photographs of one building share a side of the split."""
    parts = PurePath(file).stem.split("-")
    words = [word for word in parts[:-1] or parts if word != "background"]  # the last is a hash
    last = re.sub(r"\d+$", "", words[-1])
    subject = last if last and not last[0].isdigit() else "-".join(words)
    return _SAME_SUBJECT.get(subject, subject)


def is_held_out(file: str) -> bool:
    """One subject in four, by hash."""
    digest = hashlib.sha256(subject_of(file).encode()).hexdigest()
    return int(digest, 16) % HELD_OUT_ONE_IN == 0
