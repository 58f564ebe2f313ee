"""The command on a toy model and on videos: what it writes, what it does not do twice, and failures."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from moving_picture import disc
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from loopanimate_core.check import check_loop
from loopanimate_core.cli import evaluate as command
from loopanimate_core.cli import main
from loopanimate_core.evaluate.baselines import BASELINES
from loopanimate_core.evaluate.encoder import open_encoder
from loopanimate_core.evaluate.figures import FIGURES
from loopanimate_core.picture.images import save_picture
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.video import read_loop

pytestmark = pytest.mark.numeric
VIDEOS = ("--videos", "svd", "--videos", "cut")


def results(folder: Path) -> dict:
    return json.loads((folder / "out/evaluation.json").read_text())


def test_videos_from_elsewhere_and_baselines_of_them(evaluate, folder: Path) -> None:
    assert evaluate(*VIDEOS, "--baseline", "all", "--baseline-of", "cut") == 0
    found = results(folder)
    names = ["svd", "cut", "still", "ping-pong", "crossfade", "best-cut"]
    assert [system["label"] for system in found["systems"]] == names
    passed = {system["label"]: system["seamless"] for system in found["systems"]}
    assert passed["svd"] == 2 and passed["cut"] == passed["still"] == 0
    assert len(found["loops"]) == 2 * len(names)
    frames = {loop["system"]: loop["figures"]["frames"] for loop in found["loops"]}
    assert frames["svd"] == 24, "a file that repeats its loop is measured once"
    assert frames["ping-pong"] == 2 * frames["cut"] - 2
    assert all((folder / "out" / loop["file"]).is_file() for loop in found["loops"])


def test_the_tables_hold_means_intervals_and_every_loop(evaluate, folder: Path) -> None:
    assert evaluate(*VIDEOS) == 0
    with (folder / "out/table.csv").open() as file:
        svd, _cut = csv.DictReader(file)
    with (folder / "out/loops.csv").open() as file:
        loops = [row for row in csv.DictReader(file) if row["system"] == "svd"]
    for figure in FIGURES:
        values = [float(row[figure.key]) for row in loops]
        assert float(svd[figure.key]) == pytest.approx(sum(values) / 2, rel=1e-6, abs=1e-6)
        assert float(svd[f"{figure.key}_low"]) <= max(values)
    assert svd["seamless"] == svd["made"] == "2"


def test_an_encoder_that_is_not_clip_is_named_in_its_columns(
    evaluate, folder: Path, capsys
) -> None:
    assert evaluate("--videos", "svd") == 0
    text = capsys.readouterr().out
    for name in ("CLIP-I", "FC", "Loop-C"):
        assert f"{name} (toy's encoder)" in text
        assert f"{name} (toy&#x27;s encoder)" in (folder / "out/index.html").read_text()


def test_clip_from_a_folder(evaluate, folder: Path, capsys) -> None:
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, projection_dim=8, num_hidden_layers=1,
        num_attention_heads=2, image_size=32, patch_size=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "clip")
    assert evaluate("--videos", "svd", "--clip", "clip", "--limit", "1") == 0
    assert "CLIP-I ↑" in capsys.readouterr().out
    assert results(folder)["encoder"]["name"] == "clip"
    embeddings = open_encoder(folder / "clip")(torch.stack([disc(0.3), disc(0.7), disc(0.3)]))
    assert embeddings.shape == (3, 8)
    assert torch.allclose(embeddings[0], embeddings[2]) and not torch.equal(*embeddings[:2])


def test_a_bundle_has_raw_and_detail_rows_and_one_seed_per_picture(
    evaluate, folder: Path, toy_bundle_path: Path
) -> None:
    quick = ["--frames", "15", "--steps", "2", "--limit", "1", "--detail"]
    again = f"again={toy_bundle_path}"
    assert evaluate("--bundle", str(toy_bundle_path), "--bundle", again, *quick) == 0
    loops = results(folder)["loops"]
    assert [loop["label"] for loop in loops] == [
        "toy (raw)", "toy (detail)", "again (raw)", "again (detail)",
    ]  # fmt: skip
    assert loops[0]["figures"] == loops[2]["figures"], "the same model, picture and seed"
    assert loops[1]["figures"]["mse_f0"] < 1 < loops[0]["figures"]["mse_f0"]
    assert loops[0]["figures"]["frames"] == loops[1]["figures"]["frames"] == 14


def test_a_finished_loop_is_not_made_again(
    evaluate, folder: Path, toy_bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--bundle", str(toy_bundle_path), "--frames", "15", "--steps", "2"]
    assert evaluate(*arguments, "--limit", "1") == 0
    first = results(folder)["loops"]
    made = []
    sample = LoopAnimatePipeline.__call__

    def counting(self, picture, prompt, **settings):
        made.append(prompt)
        return sample(self, picture, prompt, **settings)

    monkeypatch.setattr(LoopAnimatePipeline, "__call__", counting)
    assert evaluate(*arguments) == 0
    assert made == ["a dog swaying"] and results(folder)["loops"][0] == first[0]
    (folder / "pictures/cat.txt").write_text("a cat pulsing")
    assert evaluate(*arguments) == 0
    assert made[1:] == ["a cat pulsing"]


def test_a_damaged_loop_is_made_again(evaluate, folder: Path) -> None:
    assert evaluate("--videos", "svd") == 0
    first = results(folder)["loops"]
    for path in [*(folder / "out").rglob("*.mkv"), *(folder / "out").rglob("*.mp4")]:
        path.write_bytes(b"cut off")
    assert evaluate("--videos", "svd") == 0
    assert results(folder)["loops"] == first


def test_a_loop_that_fails_is_a_row_with_its_reason(evaluate, folder: Path, capsys) -> None:
    (folder / "svd/cat.webm").unlink()
    (folder / "cut/cat.mp4").write_bytes(b"not a video")
    assert evaluate(*VIDEOS) == 1
    rows = {(row["system"], row["picture"]): row for row in results(folder)["loops"]}
    assert rows["svd", "cat"]["reason"].endswith("has no video named cat")
    assert "cannot read" in rows["cut", "cat"]["reason"]
    assert not rows["svd", "dog"]["reason"]
    assert results(folder)["systems"][0]["made"] == 1
    assert "2 of 4 loops failed" in capsys.readouterr().out
    assert "has no video named cat" in (folder / "out/index.html").read_text()


def test_a_clip_too_short_to_check_is_a_failure(evaluate, folder: Path) -> None:
    for path in (folder / "svd").iterdir():
        path.unlink()
    for name in ("cat", "dog"):
        (folder / "svd" / name).mkdir()
        for index in range(3):
            save_picture(disc(0.3 + 0.1 * index), folder / "svd" / name / f"{index}.png")
    assert evaluate("--videos", "svd") == 1
    assert "at least 4 frames, got 3" in results(folder)["loops"][0]["reason"]


def test_the_page_plays_every_loop_and_needs_nothing_from_the_net(evaluate, folder: Path) -> None:
    assert evaluate(*VIDEOS) == 0
    page = (folder / "out/index.html").read_text()
    assert page.count("<canvas data-loop") == 4 and "http" not in page
    held = re.search(r'id="loops">(.*?)</script>', page)
    assert held is not None
    for loop in json.loads(held[1]):
        assert (folder / "out" / loop["sheet"]).is_file() and loop["fps"] == 4
    for link in re.findall(r'href="([^"]+)"', page):
        assert len(read_loop(folder / "out" / link)[0]) >= 18


def test_names_cannot_leave_the_page_or_the_folder(evaluate, folder: Path, capsys) -> None:
    for name in ("../up", "a/b", "<b>", ""):
        assert evaluate("--videos", f"{name}=svd") == 2
        assert "a system's name must be" in capsys.readouterr().err
    (folder / "pictures/cat.txt").write_text("</script><script>alert(1)</script>")
    assert evaluate("--videos", "svd") == 0
    assert "<script>alert" not in (folder / "out/index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--videos", "nowhere"], "there is no folder nowhere"),
        (["--bundle", "no.safetensors"], "there is no model file no.safetensors"),
        (["--bundle", "pictures/cat.png"], "cat.png is not"),
        (["--bundle", "mini", "--steps", "0"], "steps must be between 1 and 1000, got 0"),
        (["--videos", "svd", "--videos", "svd=cut"], "several systems named svd"),
        (["--videos", "svd", "--clip", "pictures"], "must have a config.json"),
        (["--videos", "svd", "--size-px", "10"], "--size-px must be from 64 to 4096, got 10"),
        (
            ["--videos", "svd", "--baseline", "all", "--baseline-of", "x"],
            "must be one of svd, got 'x'",
        ),
        (["--collect", "a.json"], "--collect needs --key"),
    ],
)
def test_bad_options_are_one_sentence(evaluate, arguments: list[str], message: str, capsys) -> None:
    assert evaluate(*arguments) == 2
    assert message in capsys.readouterr().err


def test_large_videos_are_shrunk_before_they_are_measured(evaluate, folder: Path) -> None:
    assert evaluate("--videos", "svd", "--size-px", "64", "--limit", "1") == 0
    assert results(folder)["loops"][0]["figures"]["width_px"] == 64
    frames, _ = read_loop(folder / "out" / results(folder)["loops"][0]["file"])
    assert check_loop(frames).passed


def test_the_command_line_knows_every_baseline() -> None:
    assert tuple(BASELINES) == command.BASELINES


def test_without_systems_the_mini_and_all_baselines(folder: Path) -> None:
    arguments = ["evaluate", "pictures", "-o", "out", "--limit", "1", "--frames", "15"]
    assert main([*arguments, "--steps", "1"]) == 0
    labels = [system["label"] for system in results(folder)["systems"]]
    assert labels == ["mini", *BASELINES]
    assert results(folder)["encoder"]["name"] == "mini's encoder"
