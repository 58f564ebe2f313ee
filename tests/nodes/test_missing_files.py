"""The error for a file that a workflow names and this computer does not have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from loopanimate_core import LoopAnimateError


def test_the_loader_names_a_missing_files_source_and_folder(nodes: Mapping[str, Any]) -> None:
    load = nodes["LoadLoopAnimate"].execute
    parts = {"bundle": "parts", "checkpoint": "v1-5-pruned-emaonly-fp16.safetensors"}
    with pytest.raises(LoopAnimateError) as raised:
        load(**parts)
    said = str(raised.value)
    assert "models/checkpoints" in said and "(2130 MB)" in said
    assert "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive" in said
    assert "`loopanimate fetch pia --comfyui FOLDER` puts it there" in said


def test_a_file_of_ones_own_has_no_source(nodes: Mapping[str, Any]) -> None:
    with pytest.raises(LoopAnimateError, match="there is no file 'mine") as raised:
        nodes["LoadLoopAnimate"].execute(bundle="parts", checkpoint="mine.safetensors")
    assert "huggingface" not in str(raised.value)


def test_a_part_that_is_not_chosen(nodes: Mapping[str, Any]) -> None:
    with pytest.raises(LoopAnimateError, match="checkpoint: any Stable Diffusion") as raised:
        nodes["LoadLoopAnimate"].execute(bundle="parts")
    assert "loopanimate fetch pia --comfyui FOLDER" in str(raised.value)
