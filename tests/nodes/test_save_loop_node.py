"""Save Loop: files in every format, their names, and the workflow inside."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video import read_metadata, read_video
from loopanimate_core.video.formats import FORMATS

DEFAULTS: dict[str, Any] = {
    "filename_prefix": "loopanimate/loop",
    "format": "webp",
    "fps": 8.0,
    "quality": -1,
    "preset": "as it is",
    "repeats": 0,
}
WORKFLOW = {"nodes": [{"type": "LoopAnimate_SaveLoop", "widgets_values": ["ein {Gruß} 你好"]}]}


def save(nodes: Any, images: torch.Tensor, hidden: Any = None, **changes: Any) -> Any:
    node = nodes["SaveLoop"].PREPARE_CLASS_CLONE(hidden)
    return node.execute(images, **DEFAULTS | changes)


def page(node: Any) -> dict[Any, Any]:
    """The hidden inputs that ComfyUI passes for a prompt from its page."""
    hidden = sys.modules[node.__mro__[1].__module__].Hidden
    return {hidden.prompt: {"1": {"class_type": "x"}}, hidden.extra_pnginfo: {"workflow": WORKFLOW}}


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_contains_the_loop_and_its_workflow(
    nodes: Any, loop: torch.Tensor, tmp_path: Path, format: str
) -> None:
    output = save(nodes, loop, page(nodes["SaveLoop"]), format=format, fps=10.0, repeats=1)
    images, path = output.result
    assert images is loop and Path(path).parent == tmp_path / "output/loopanimate"
    frames, fps = read_video(path)
    assert frames.shape == loop.shape and fps == 10
    assert float((frames - loop).abs().mean()) < 0.02
    tags = read_metadata(path)
    assert json.loads(tags["workflow"]) == WORKFLOW
    assert json.loads(tags["prompt"]) == {"1": {"class_type": "x"}}
    (saved,) = output.ui["loopanimate_saved"]
    assert tmp_path / saved["type"] / saved["subfolder"] / saved["filename"] == Path(path)
    assert (saved["format"], saved["frames"], saved["fps"]) == (format, 16, 10.0)


@pytest.mark.parametrize("format", FORMATS)
def test_the_page_gets_a_file_it_can_play(
    nodes: Any, loop: torch.Tensor, tmp_path: Path, format: str
) -> None:
    ui = save(nodes, loop, format=format).ui
    (shown,) = ui["images"]
    path = tmp_path / shown["type"] / shown["subfolder"] / shown["filename"]
    assert path.suffix in (".mp4", ".webm", ".webp", ".png") and path.is_file()
    assert ui["animated"] == [True]


def test_disable_metadata_option(
    nodes: Any, loop: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from comfy import cli_args

    monkeypatch.setattr(cli_args.args, "disable_metadata", True)
    path = save(nodes, loop, page(nodes["SaveLoop"])).result[1]
    assert set(read_metadata(path)) == {"loop_frames", "loop_fps"}


def test_file_names_have_a_counter_picture_name_and_date(nodes: Any, loop: torch.Tensor) -> None:
    options = {"filename_prefix": "%date:yyyy%/loop", "picture_name": "my: cat"}
    paths = [Path(save(nodes, loop, **options).result[1]) for _ in range(2)]
    assert [path.name for path in paths] == ["loop_my_ cat_00001_.webp", "loop_my_ cat_00002_.webp"]
    assert paths[0].parent.name == str(datetime.now().year)
    assert paths[0].is_file() and paths[1].is_file()


def test_presets_and_repeats_are_applied(nodes: Any, loop: torch.Tensor) -> None:
    path = save(nodes, loop, preset="phone 9:16", format="mp4", repeats=2).result[1]
    frames, _ = read_video(path)
    assert frames.shape == (32, 48, 26, 3)
    assert read_metadata(path)["loop_frames"] == "16"


def test_a_sticker_keeps_its_transparency(nodes: Any, loop: torch.Tensor) -> None:
    images = torch.cat([loop, (loop[..., :1] > 0.5).float()], -1)
    frames, _ = read_video(save(nodes, images, preset="sticker").result[1], alpha=True)
    assert frames.shape == (16, 48, 48, 4)
    assert float(frames[..., 3].min()) == 0 and float(frames[..., 3].max()) == 1


def test_fps_that_gif_cannot_store_warns(
    nodes: Any, loop: torch.Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "loopanimate"):
        save(nodes, loop, format="gif", fps=24.0)
    assert "hundredths of a second" in caplog.text


@pytest.mark.parametrize("prefix", ["../loop", "a/../../loop", "/tmp/loop", "", ".", ".."])
def test_nothing_is_written_outside_the_output_folder(
    nodes: Any, loop: torch.Tensor, tmp_path: Path, prefix: str
) -> None:
    with pytest.raises(LoopAnimateError, match="inside ComfyUI's output folder"):
        save(nodes, loop, filename_prefix=prefix)
    assert not list((tmp_path / "output").rglob("*.webp"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "mpeg"}, "format must be one of mp4"),
        ({"preset": "round"}, "preset must be one of .* got 'round'"),
        ({"quality": 0}, "quality must be a whole number from 1 to 100"),
        ({"fps": 500.0}, "fps must be from 1 to 120"),
    ],
)
def test_invalid_inputs_raise_one_sentence_and_write_no_file(
    nodes: Any, loop: torch.Tensor, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoopAnimateError, match=words):
        save(nodes, loop, **changes)
    assert [path for path in (tmp_path / "output").rglob("*") if path.is_file()] == []


def test_missing_encoder_raises(
    nodes: Any, loop: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loopanimate_core.video import ffmpeg

    monkeypatch.setattr(ffmpeg, "encoders", lambda: frozenset({"libx264"}))
    with pytest.raises(LoopAnimateError, match="no encoder libsvtav1, so webm-av1 cannot be"):
        save(nodes, loop, format="webm-av1")


def test_a_moving_mask_makes_a_sticker(nodes: Any, loop: torch.Tensor) -> None:
    """The mask of each frame becomes its transparency; one mask serves all."""
    bright = (loop[..., 0] > 0.5).float()
    for mask in (bright, bright[:1]):
        _, path = save(nodes, loop, mask=mask).result
        frames, _ = read_video(path, alpha=True)
        assert frames.shape == (16, 48, 64, 4)
        assert float((frames[..., 3] - mask.expand(16, -1, -1)).abs().mean()) < 0.02
    with pytest.raises(
        LoopAnimateError, match="mask must have 1 frame or as many as images, 16, got 3"
    ):
        save(nodes, loop, mask=bright[:3])
    with pytest.raises(LoopAnimateError, match="mp4 cannot store transparency"):
        save(nodes, loop, mask=bright, format="mp4")


def test_sound_is_put_into_the_file(nodes: Any, loop: torch.Tensor) -> None:
    audio = {"waveform": torch.rand(1, 2, 4800) - 0.5, "sample_rate": 48_000}
    hidden = page(nodes["SaveLoop"])
    _, silent = save(nodes, loop, hidden, format="mp4", repeats=1).result
    _, path = save(nodes, loop, hidden, format="mp4", repeats=1, audio=audio).result
    assert Path(path).stat().st_size > Path(silent).stat().st_size
    assert json.loads(read_metadata(path)["workflow"]) == WORKFLOW
    with pytest.raises(
        LoopAnimateError, match="webp cannot hold sound; mp4, webm, webm-av1, prores can"
    ):
        save(nodes, loop, audio=audio)
