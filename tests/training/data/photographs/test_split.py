"""Which photographs are held out."""

from __future__ import annotations

import numpy as np

from loopanimate_training.data.photographs.split import is_held_out, subject_of


def test_photographs_of_one_building_share_a_side() -> None:
    assert subject_of("image-toureiffel-background-29664c") == subject_of(
        "france-eiffeltower-acbd00"
    )
    assert subject_of("resource-sea1-5603b0") == subject_of("resource-sea2-ed7b0b")
    assert subject_of("autumn-2560x1600-6836d9") != subject_of("kite-2560x1600-ebf030")
    share = np.mean([is_held_out(f"photo-{chr(97 + k % 26)}{k}x-0") for k in range(2000)])
    assert 0.2 < share < 0.3


def test_folders_endings_and_plain_names_do_not_matter() -> None:
    assert subject_of("a/b/animals-lizard-1c2b3d.jpg") == subject_of("pets-lizard2-000000.png")
    assert subject_of("12.jpg") == "12"
