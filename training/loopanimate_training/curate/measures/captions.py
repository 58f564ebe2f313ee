"""Which thing a caption names (Sec. 3.5: the first frame must contain the object that the caption describes)."""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import yaml

_NOUNS = Path(__file__).parent.parent / "nouns.yaml"
_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "children": "child",
    "mice": "mouse",
    "geese": "goose",
    "feet": "foot",
    "wolves": "wolf",
    "calves": "calf",
    "leaves": "leaf",
    "knives": "knife",
    "oxen": "ox",
    "octopi": "octopus",
    "cacti": "cactus",
    "businessmen": "businessman",
    "fishermen": "fisherman",
    "snowmen": "snowman",
}


def named_thing(caption: str) -> str:
    """The first thing of the list of nouns in a caption, in the singular; "" if it names none.

    The list is English and short, and knows no grammar: in "cat food on a plate" the thing is a cat.
    """
    words = re.findall(r"[a-z]+", caption.lower())
    known = _things()
    for pair in pairwise([*words, ""]):
        for text in ("-".join(pair), pair[0]):
            for form in _singular(text):
                if form in known:
                    return form
    return ""


def _singular(word: str) -> list[str]:
    """The word, and what it may be the plural of."""
    forms = [word, _IRREGULAR.get(word, word)]
    if word.endswith("ies"):
        forms.append(word[:-3] + "y")
    if word.endswith("es"):
        forms.append(word[:-2])
    if word.endswith("s") and not word.endswith("ss"):
        forms.append(word[:-1])
    return forms


@lru_cache(maxsize=1)
def _things() -> frozenset[str]:
    groups = yaml.safe_load(_NOUNS.read_text(encoding="utf-8"))
    return frozenset(word for words in groups.values() for word in words.split())
