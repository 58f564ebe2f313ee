"""An ablation at toy size, its resumption, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from moving_picture import disc

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.evaluate import read_cases
from loopanimate_core.evaluate.encoder import open_encoder
from loopanimate_core.evaluate.figures import FIGURES
from loopanimate_core.evaluate.runner import Row
from loopanimate_core.picture.images import save_picture
from loopanimate_training.ablation import results
from loopanimate_training.ablation.run import Evaluation, run_ablation
from loopanimate_training.ablation.runs import Plan
from loopanimate_training.ablation.tables import ABLATIONS, SCALES
from loopanimate_training.model.start import find_checkpoint
from loopanimate_training.testing import draw_clips

SMALL = (
    "clip.f=4 clip.stride=1 clip.reverse_steps=[1] clip.height_px=32 clip.width_px=32 clip.mask=ones batch.size=1"
    " validation.loss_clips=1 device=cpu data.held_out_share=0"
)


@pytest.fixture
def plan(tmp_path: Path, toy_bundle_path: Path) -> Plan:
    draw_clips(tmp_path / "frames")
    data = {"source": "frames", "path": tmp_path / "frames", "index": tmp_path / "index"}
    return Plan(tmp_path / "out", 1, data, SMALL.split(), toy_bundle_path)


@pytest.fixture
def evaluation(tmp_path: Path, toy_bundle_path: Path) -> Evaluation:
    (tmp_path / "pictures").mkdir()
    save_picture(disc(), tmp_path / "pictures" / "disc.png")
    encoder = open_encoder(toy_bundle_path)
    return Evaluation(read_cases(tmp_path / "pictures", "up"), encoder, {"steps": 1})


def test_projections_share_a_base_and_a_second_call_trains_nothing(
    plan: Plan, evaluation: Evaluation
) -> None:
    said: list[str] = []
    text, files = run_ablation("projections", plan, 2, evaluation, said.append)
    assert sum("training" in line for line in said) == 2 * (1 + 4)
    trained = {path.name: find_checkpoint(path) for path in (plan.out / "runs").iterdir()}
    for seed in range(2):
        only_q = trained[f"3-q-seed{seed}"]
        assert only_q is not None and Path(only_q.config["model"]["start"]).name == f"1-seed{seed}"
        assert all("conv_in" in name or "to_q" in name for name in only_q.weights)
    found = json.loads(files[0].read_text())
    losses = {label: row["loss"]["seeds"] for label, row in found["rows"].items()}
    pairs = zip(losses["QKV"], losses["QV"], strict=True)
    difference = found["rows"]["QKV"]["loss"]["difference"]
    assert difference["seeds"] == pytest.approx([ours - papers for ours, papers in pairs])
    assert text in files[1].read_text() and "| QKV" in text
    said.clear()
    assert run_ablation("projections", plan, 2, evaluation, said.append)[0] == text
    assert not any("training" in line or "export" in line for line in said)


def test_routings_are_new_networks_that_read_as_their_row_says(
    plan: Plan, evaluation: Evaluation
) -> None:
    run_ablation("routing", plan, 1, evaluation, lambda text: None)
    for stage in ABLATIONS["routing"].rows.values():
        found = find_checkpoint(plan.out / "runs" / f"{stage}-seed0")
        assert found is not None and found.config["model"]["train"] == ["all"]
        assert any("resnets" in name for name in found.weights)
    changed = Plan(plan.out, 1, plan.data, [*plan.overrides, "loss.drop_text=0.3"], plan.start)
    with pytest.raises(LoopAnimateError, match=r"loss\.drop_text"):
        run_ablation("routing", changed, 1, evaluation, lambda text: None)


def test_a_small_scale_is_short_and_gives_way_to_settings(tmp_path: Path) -> None:
    data = {"source": "videos", "path": tmp_path}
    small = Plan(tmp_path, 5, data, [], scale=SCALES["small"])
    new = small.new_network("1-routing0", 0)
    row = small.row(ABLATIONS["projections"], "3-qv", 0)
    assert (new.clip.frames, row.clip.frames, new.clip.width_px, row.steps) == (7, 9, 64, 5)
    assert new.data.cache == row.data.cache == tmp_path / "latents"
    longer = Plan(tmp_path, 5, data, ["clip.f=8"], scale=SCALES["small"])
    assert longer.new_network("1-routing0", 0).clip.frames == 15


def test_intervals_are_students_over_the_seeds() -> None:
    found = results.mean_of([1.0, 2.0, 3.0])
    assert found["mean"] == 2.0
    assert found["high"] - 2.0 == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert results.mean_of([5.0])["low"] is None and results.mean_of([])["mean"] is None


def test_differences_are_taken_seed_by_seed() -> None:
    """Seeds differ by 10, rows by 1: means overlap, differences do not."""
    ablation = ABLATIONS["projections"]
    runs = []
    for seed in range(3):
        for number, label in enumerate(ablation.rows):
            figures = dict.fromkeys([figure.key for figure in FIGURES], 10.0 * seed + number)
            row = Row("s", "raw", "s", "cat", "", figures={**figures, "passed": True})
            runs.append(results.Trained(label, seed, 0.5, [row]))
    found = results.compare(ablation, runs)
    apart = found["QKV"]["flow"]["difference"]
    assert apart["mean"] == apart["low"] == apart["high"] == pytest.approx(1.0)
    assert found["QKV"]["flow"]["low"] < found["QV"]["flow"]["mean"]
    text = results.text_of(ablation, found, open_encoder(), 3)
    assert "**+1.000**" in text and "**-2.000**" in text
