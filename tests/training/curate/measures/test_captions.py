"""Which thing a caption names."""

from __future__ import annotations

import pytest

from loopanimate_training.curate.measures.captions import named_thing


@pytest.mark.parametrize(
    ("caption", "thing"),
    [
        ("A white cockatoo moving its head", "cockatoo"),
        ("two Butterflies above the meadow", "butterfly"),
        ("Men, talking in a car", "man"),
        ("foxes and geese", "fox"),
        ("melting ice cream on a cone", "ice-cream"),
        ("a glass of water", "glass"),
        ("sunset over the ocean, timelapse", ""),
        ("", ""),
        ("ねこ", ""),
    ],
)
def test_the_first_thing_in_the_singular(caption: str, thing: str) -> None:
    assert named_thing(caption) == thing
