"""What happens to a loop around its file: sheets, presets, joining, names, tags, picture folders."""

from __future__ import annotations

import json
import math
from datetime import datetime
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.folder import BUNDLED, list_pictures, pick_picture
from loopanimate_core.video.filenames import expand_prefix, safe_stem
from loopanimate_core.video.joining import chain_loops, close_loop, open_loop
from loopanimate_core.video.shapes import PRESETS, apply_preset
from loopanimate_core.video.sheet import draw_sheet, plan_sheet, shrink_frames
from loopanimate_core.video.workflow_tags import workflow_tags

NOW = datetime(2026, 3, 9, 7, 5, 2)


def ramp(frames: int = 3, height: int = 40, width: int = 60, channels: int = 3) -> torch.Tensor:
    return torch.linspace(0, 1, frames * height * width * channels).reshape(
        frames, height, width, channels
    )


# ---------------------------------------------------------------------------------------- sheets
@given(frames=st.integers(1, 2000), height=st.integers(1, 3000), width=st.integers(1, 3000))
def test_a_sheet_is_small_enough_and_holds_every_frame(
    frames: int, height: int, width: int
) -> None:
    layout = plan_sheet(frames, height, width)
    assert layout.rows * layout.columns >= frames > (layout.rows - 1) * layout.columns
    assert max(layout.columns * layout.width_px, layout.rows * layout.height_px) <= 4096
    assert 1 <= max(layout.width_px, layout.height_px) <= 320
    assert layout.width_px <= width and layout.height_px <= height


def test_frames_lie_where_the_layout_says() -> None:
    frames = ramp(7, 4, 6)
    layout = plan_sheet(7, 4, 6)
    sheet = draw_sheet(frames, layout)
    for index, frame in enumerate(frames):
        top, left = layout.corner(index)
        assert sheet[top : top + 4, left : left + 6].equal(frame)


def test_a_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(LoopAnimateError, match="not 0 of"):
        plan_sheet(0, 8, 8)
    with pytest.raises(LoopAnimateError, match="do not fit"):
        plan_sheet(100, 8, 8, sheet_px=5)


def test_shrinking_keeps_the_shape_and_never_enlarges() -> None:
    assert shrink_frames(ramp(2, 40, 60, 4), 30).shape == (2, 20, 30, 4)
    assert shrink_frames(ramp(), 300).equal(ramp())


# --------------------------------------------------------------------------------------- presets
@pytest.mark.parametrize("name", [name for name, row in PRESETS.items() if row.aspect])
@pytest.mark.parametrize("size", [(512, 512), (287, 613), (900, 333)])
def test_a_preset_cuts_the_largest_middle_of_its_shape(name: str, size: tuple[int, int]) -> None:
    height, width = size
    cut = apply_preset(torch.zeros(1, height, width, 3), name)
    aspect = PRESETS[name].aspect
    assert aspect is not None
    assert cut.shape[1] % 2 == cut.shape[2] % 2 == 0
    assert cut.shape[2] / cut.shape[1] == pytest.approx(float(aspect), rel=0.02)
    if PRESETS[name].longest_px is None:
        assert cut.shape[1] >= height - 1 or cut.shape[2] >= width - 1


def test_a_preset_keeps_the_middle() -> None:
    frames = torch.zeros(1, 40, 80, 3)
    frames[:, 19:21, 39:41] = 1
    for name in PRESETS:
        cut = apply_preset(frames, name)
        height, width = cut.shape[1:3]
        assert cut[0, height // 2, width // 2].equal(torch.ones(3)), name


def test_a_sticker_is_small_and_keeps_its_transparency() -> None:
    frames = torch.zeros(2, 700, 900, 4)
    frames[:, 200:500, 300:600] = torch.tensor([1.0, 0.5, 0.0, 1.0])
    cut = apply_preset(frames, "sticker")
    assert cut.shape == (2, 512, 512, 4)
    visible = cut[..., 3] > 0.05
    assert float((cut[..., :3][visible] - torch.tensor([1.0, 0.5, 0.0])).abs().max()) < 0.05
    assert float(cut[0, 0, 0, 3]) == 0 and float(cut[0, 256, 256, 3]) > 0.99


def test_as_it_is_touches_nothing_and_bad_presets_are_refused() -> None:
    frames = ramp()
    assert apply_preset(frames, "as it is") is frames
    with pytest.raises(LoopAnimateError, match="'round' must be one of as it is"):
        apply_preset(frames, "round")
    with pytest.raises(LoopAnimateError, match="too few"):
        apply_preset(ramp(1, 24, 24), "ultrawide 21:9")


# --------------------------------------------------------------------------------------- joining
def test_closing_and_opening_undo_each_other() -> None:
    frames = ramp()
    closed = close_loop(frames)
    assert len(closed) == 4 and closed[-1].equal(frames[0])
    assert open_loop(closed).equal(frames)
    with pytest.raises(LoopAnimateError, match="1 frame"):
        open_loop(frames[:1])


def test_a_chain_holds_its_loops_in_order() -> None:
    first, second = ramp(2), ramp(3).flip(0)
    assert chain_loops([first, second]).equal(torch.cat([first, second]))
    with pytest.raises(LoopAnimateError, match="loop 2 is 50 x 40 pixels and loop 1 60 x 40"):
        chain_loops([first, second[:, :, :50]])


# ----------------------------------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("prefix", "picture", "expected"),
    [
        ("loops/a", None, "loops/a"),
        ("loops/a", "ghost", "loops/a_ghost"),
        ("%picture_name%/loop", "ghost", "ghost/loop"),
        ("%picture_name%/loop", None, "picture/loop"),
        ("a/%date%", None, "a/2026-03-09"),
        ("%date:yy.MM.dd_hhmmss%_%width%", "x", "26.03.09_070502_%width%_x"),
        ("a", "../../etc/passwd", "a__.._etc_passwd"),
        ("a", "%date%", "a__date_"),
        ("a", " .. ", "a"),
    ],
)
def test_prefixes(prefix: str, picture: str | None, expected: str) -> None:
    assert expand_prefix(prefix, picture, NOW) == expected


@given(st.text())
def test_a_safe_stem_is_one_name_everywhere(name: str) -> None:
    stem = safe_stem(name)
    assert len(stem) <= 80 and not set(stem) & set('<>:"/\\|?*%\0\n')
    assert stem == stem.strip(" .")


# ------------------------------------------------------------------------------------------ tags
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60)
@given(json_values.filter(lambda value: value is not None))
def test_tags_are_the_same_values_in_plain_ascii(value: object) -> None:
    text = workflow_tags(None, {"workflow": value})["workflow"]
    assert json.loads(text) == value
    assert text.isascii() and "\0" not in text


def test_the_reader_of_webm_that_counts_braces_finds_the_end() -> None:
    text = workflow_tags({"1": {"inputs": {"text": 'a {red|"} blue\\" {{'}}}, None)["prompt"]
    depth = 0
    for index, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth > 0 or index == len(text) - 1
    assert depth == 0


def test_what_no_file_or_page_can_hold_is_left_out() -> None:
    tags = workflow_tags({"is_changed": [math.nan]}, {"workflow": {}, "Some Pack": 1})
    assert tags == {"prompt": '{"is_changed": [null]}', "workflow": "{}"}
    assert workflow_tags(None, None) == {}


# --------------------------------------------------------------------------------------- folders
def touch(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")


def test_pictures_come_in_the_same_order_everywhere(tmp_path: Path) -> None:
    touch(tmp_path, "b10.png", "b2.PNG", "a.jpeg", "B2.webp", ".hidden.png", "notes.txt", "²3.png")
    (tmp_path / "folder.png").mkdir()
    names = [path.name for path in list_pictures(tmp_path)]
    assert names == ["a.jpeg", "b2.PNG", "B2.webp", "b10.png", "²3.png"]


def test_no_way_leads_out_of_the_folder(tmp_path: Path) -> None:
    touch(tmp_path / "top/inside", "a.png")
    touch(tmp_path / "secret", "s.png")
    top = tmp_path / "top"
    (top / "inside/link.png").symlink_to(tmp_path / "secret/s.png")
    (top / "way_out").symlink_to(tmp_path / "secret", target_is_directory=True)
    assert [path.name for path in list_pictures(top, "inside")] == ["a.png"]
    for subfolder in (
        "..",
        "../secret",
        "inside/../../secret",
        str(tmp_path / "secret"),
        "way_out",
    ):
        with pytest.raises(LoopAnimateError, match="lies outside"):
            list_pictures(top, subfolder)
    with pytest.raises(LoopAnimateError, match="no folder 'gone'"):
        list_pictures(top, "gone")


def test_the_end_of_a_folder_is_said(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    pictures = list_pictures(tmp_path)
    assert pick_picture(pictures, 1, "input").name == "b.png"
    for index in (2, -1):
        with pytest.raises(LoopAnimateError, match=f"0 to 1, so there is no picture {index}"):
            pick_picture(pictures, index, "input")
    with pytest.raises(LoopAnimateError, match="holds no pictures"):
        pick_picture([], 0, "input")


def test_the_sample_pictures_are_there() -> None:
    assert "ghost.png" in [path.name for path in list_pictures(BUNDLED)]
