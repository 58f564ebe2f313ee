"""Loop Sampler has ComfyUI's name for every scheduler of core."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from loopanimate_core.schedule import SCHEDULERS


def test_every_scheduler_has_a_name_in_comfyui(pack: ModuleType) -> None:
    names = import_module(f"{pack.__name__}.nodes.loop_sampler").COMFY_NAMES
    assert set(names) == set(SCHEDULERS)
