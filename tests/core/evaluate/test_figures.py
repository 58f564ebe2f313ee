"""Baselines, figures and verdicts on synthetic frames."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from moving_picture import disc, swaying
from torch import Tensor

from loopanimate_core.check import check_loop
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.evaluate.baselines import BASELINES, apply_baseline, best_cut, crossfade
from loopanimate_core.evaluate.figures import FIGURES, interval, mean_flow_percent, measure_clip
from loopanimate_core.evaluate.store import Clip
from loopanimate_core.picture.images import Picture

pytestmark = pytest.mark.numeric


def soft(x: float, y: float = 0.5, size_px: int = 64) -> Tensor:
    """A disc with a soft edge at (x, y), `[size, size, 3]`."""
    axis = torch.linspace(0, 1, size_px)
    radius = ((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2).sqrt()
    inside = ((0.2 - radius) * 40).sigmoid()[..., None]
    return inside * torch.tensor([0.7, 0.1, 0.1]) + (1 - inside) * torch.tensor([0.8, 0.9, 1.0])


def circling(frames: int = 24, turns: float = 1.0, reach: float = 0.18) -> Tensor:
    """The disc on a circle; whole turns close."""
    angles = [math.tau * turns * index / frames for index in range(frames)]
    return torch.stack([soft(0.5 + reach * math.cos(a), 0.5 + reach * math.sin(a)) for a in angles])


def shape_encoder(pictures: Tensor) -> Tensor:
    """`[N, 192]`: the pictures at 8 × 8 pixels around grey."""
    small = torch.nn.functional.interpolate(pictures.permute(0, 3, 1, 2), (8, 8), mode="area")
    return small.flatten(1) - 0.5


def measure(frames: Tensor, folder: Path) -> dict:
    picture = Picture(frames[0])
    return measure_clip(Clip(frames, 8.0), picture, shape_encoder, folder / "loop.mp4")


FAULTS = {
    "seamless": circling(),
    "ping pong": apply_baseline("ping-pong", circling(12, 0.3)),
    "frozen": apply_baseline("still", circling()),
    "held frame": torch.cat([circling(), circling()[:1]]),
    "jump": circling(turns=0.6),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_gets_its_verdict(fault: str, tmp_path: Path) -> None:
    found = measure(FAULTS[fault], tmp_path)
    assert fault in found["verdict"]
    assert found["passed"] == (fault == "seamless")
    assert fault == "seamless" or not found["file_passed"]


def test_scores_that_ignore_motion_are_perfect_for_a_frozen_clip(tmp_path: Path) -> None:
    frozen, moving = measure(FAULTS["frozen"], tmp_path), measure(circling(), tmp_path)
    for name in ("clip_i", "fc", "loop_c", "ssim"):
        assert frozen[name] == pytest.approx(1, abs=1e-5) and frozen[name] >= moving[name]
    assert frozen["flow"] == pytest.approx(0, abs=1e-6) and frozen["seam"] is None
    assert moving["flow"] > 0.1 and 0.6 < moving["seam"] < 1.5


def test_every_figure_is_measured(tmp_path: Path) -> None:
    found = measure(circling(), tmp_path)
    assert {figure.key for figure in FIGURES} <= found.keys()
    assert found["frames"] == 24 and found["mse_f0"] == pytest.approx(0, abs=1e-3)


def test_the_figures_of_table_2_are_those_of_the_loop_check(tmp_path: Path) -> None:
    frames = circling()
    report = check_loop(frames, reference=frames[0], image_encoder=shape_encoder)
    found = measure(frames, tmp_path)
    assert [found[name] for name in ("clip_i", "fc", "loop_c", "ssim")] == pytest.approx(
        [report.clip_i, report.fc, report.loop_c, report.ssim_adjacent]
    )


def test_flow_grows_with_the_motion() -> None:
    flows = [mean_flow_percent(circling(reach=reach)) for reach in (0.05, 0.1, 0.2)]
    assert flows == sorted(flows) and flows[2] > 2 * flows[0]


def test_ping_pong_repeats_neither_end() -> None:
    frames = circling(10, 0.3)
    played = apply_baseline("ping-pong", frames)
    assert len(played) == 18
    assert torch.equal(played[9], frames[9]) and torch.equal(played[10], frames[8])
    assert torch.equal(played[-1], frames[1])


def test_crossfade_ends_where_it_began() -> None:
    frames = circling(24, 0.6)
    played = crossfade(frames)
    seam = (played[0] - played[-1]).abs().mean()
    assert len(played) == 18
    assert seam < 0.5 * (frames[0] - frames[-1]).abs().mean()
    assert torch.equal(played[6:], frames[6:18])


def test_best_cut_finds_the_loop_inside_a_clip() -> None:
    """Two thirds of a straight line, then a circle and a half: one turn of it closes."""
    circle = circling(16)
    way = torch.stack([soft(0.1 + 0.05 * index, 0.2) for index in range(6)])
    played = best_cut(torch.cat([way, circle, circle[:4]]))
    assert len(played) == 16
    assert check_loop(played).passed


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "still"])
def test_a_clip_too_short_for_a_baseline_is_refused(name: str) -> None:
    with pytest.raises(LoopAnimateError, match="at least 8 frames, got 5"):
        apply_baseline(name, swaying(5))


def test_baselines_need_one_frame_only_to_stand_still() -> None:
    assert len(apply_baseline("still", disc()[None].expand(9, -1, -1, -1))) == 9


def test_interval_holds_the_mean_and_shrinks_with_more_values() -> None:
    few, many = [0.1, 0.4, 0.2, 0.3], [0.1, 0.4, 0.2, 0.3] * 25
    wide, narrow = interval(few), interval(many)
    assert wide and narrow and interval([1.0]) is None
    assert wide[0] <= 0.25 <= wide[1] and narrow[0] <= 0.25 <= narrow[1]
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    assert interval(few) == wide
    assert interval([2.0, 2.0]) == (2.0, 2.0)
