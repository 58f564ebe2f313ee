"""Loop Check: the verdict, the data for the page, and a bad loop."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import load_picture

DEFAULTS: dict[str, Any] = {"fps": 8.0, "jump_ratio": 1.6, "frozen_change": 3.0, "on_fail": "warn"}


def test_a_seamless_loop_passes(nodes: Any, loop: torch.Tensor) -> None:
    output = nodes["LoopCheck"].execute(loop, **DEFAULTS)
    images, report, passed, chart = output.result
    assert images is loop and passed is True
    assert json.loads(report)["frames"] == 16
    assert chart.shape == (1, 320, 640, 3)


def test_the_page_gets_a_sheet_it_can_play(nodes: Any, loop: torch.Tensor, tmp_path: Path) -> None:
    output = nodes["LoopCheck"].execute(loop, **DEFAULTS)
    (shown,) = output.ui["loopanimate_check"]
    json.dumps(output.ui, allow_nan=False)
    assert (shown["frames"], shown["width"], shown["height"], shown["fps"]) == (16, 64, 48, 8.0)
    assert shown["passed"] and shown["summary"].startswith("Seamless") and shown["reasons"] == []
    assert shown["report"]["steps"] and shown["sheet"]["type"] == shown["chart"]["type"] == "temp"
    sheet = load_picture(tmp_path / "temp" / shown["sheet"]["filename"]).rgb
    for index, frame in enumerate(loop):
        row, column = divmod(index, shown["columns"])
        cell = sheet[row * 48 : row * 48 + 48, column * 64 : column * 64 + 64]
        assert float((cell - frame).abs().mean()) < 0.01, index
    assert (tmp_path / "temp" / shown["chart"]["filename"]).is_file()


def test_two_runs_never_share_a_file(nodes: Any, loop: torch.Tensor) -> None:
    """A browser would show the first one again."""
    runs = [nodes["LoopCheck"].execute(loop, **DEFAULTS).ui for _ in range(2)]
    names = {run["loopanimate_check"][0]["sheet"]["filename"] for run in runs}
    assert len(names) == 2


def test_warn_goes_on_and_says_why(
    nodes: Any, loop: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "loopanimate"):
        output = nodes["LoopCheck"].execute(loop[:11], **DEFAULTS)
    assert output.result[2] is False
    (shown,) = output.ui["loopanimate_check"]
    assert shown["reasons"] == ["jump"]
    assert "jumps at the seam" in shown["summary"] and "jumps at the seam" in caplog.text


def test_stop_ends_the_run_with_the_reason(nodes: Any, loop: torch.Tensor) -> None:
    still = loop[:1].repeat(8, 1, 1, 1)
    with pytest.raises(LoopAnimateError, match="nothing moves"):
        nodes["LoopCheck"].execute(still, **DEFAULTS | {"on_fail": "stop"})


def test_thresholds_reach_the_verdict(nodes: Any, loop: torch.Tensor) -> None:
    strict = nodes["LoopCheck"].execute(loop, **DEFAULTS | {"frozen_change": 254.0})
    assert strict.ui["loopanimate_check"][0]["reasons"] == ["frozen"]


def test_reference_and_clip_vision_add_their_figures(nodes: Any, loop: torch.Tensor) -> None:
    def encode_image(pictures: torch.Tensor) -> SimpleNamespace:
        assert pictures.shape[-1] == 3 and len(pictures) <= 16
        return SimpleNamespace(image_embeds=pictures[:, ::4, ::4].flatten(1).half())

    frames = torch.cat([loop, loop])
    alpha = torch.ones_like(frames[..., :1])
    output = nodes["LoopCheck"].execute(
        torch.cat([frames, alpha], -1),
        **DEFAULTS,
        reference=loop[:1],
        clip_vision=SimpleNamespace(encode_image=encode_image),
    )
    report = json.loads(output.result[1])
    assert report["mse_f0"] == 0
    assert 0.9 < report["clip_i"] < 1 and 0.9 < report["fc"] < 1 and report["loop_c"] is not None


@pytest.mark.parametrize(("change", "words"), [({"on_fail": "panic"}, "on_fail")])
def test_a_value_off_the_list_is_refused(
    nodes: Any, loop: torch.Tensor, change: dict[str, Any], words: str
) -> None:
    """ComfyUI before 0.3.65 does not check combo values itself."""
    with pytest.raises(LoopAnimateError, match=words):
        nodes["LoopCheck"].execute(loop, **DEFAULTS | change)


def test_inputs_are_left_as_they_were(nodes: Any, loop: torch.Tensor) -> None:
    before = loop.clone()
    nodes["LoopCheck"].execute(loop, **DEFAULTS)
    assert loop.equal(before)
