"""Clips from files: frames, masks and captions of an indexed data set."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from film_data import CLIP, data_of
from PIL import Image

from loopanimate_training.config import ClipConfig, DataConfig
from loopanimate_training.data.index.build import open_index
from loopanimate_training.data.index.probe import FEW_MASKS
from loopanimate_training.data.index.selection import HELD_OUT, select
from loopanimate_training.data.opening import open_validation_source
from loopanimate_training.data.source import FileSource
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.source import StickerSource
from loopanimate_training.data.video.bad_clip import BadClip

Films = Any  # the fixture of conftest.py


def test_moved_data_keeps_its_content_keys(folder: Path) -> None:
    before = FileSource(data_of(folder), CLIP)
    keys = [before.key(i) for i in range(len(before))]
    moved = folder.rename(folder.parent / "elsewhere")
    after = FileSource(data_of(moved), CLIP)
    assert [after.key(i) for i in range(len(after))] == keys and len(set(keys)) == 5
    slow = FileSource(data_of(moved), CLIP.model_copy(update={"fps": 12.0}))
    assert slow.key(0) not in keys


def test_masks_belong_to_the_clip(films: Films, folder: Path) -> None:
    films.write(folder / "1.mask.mp4", 24, first=0)
    films.write(folder / "2.mask.mp4", 20, first=0)
    (folder / "3.masks").mkdir()
    for number in range(24):
        picture = Image.new("L", (64, 16), 255 if number % 2 else 0)
        picture.save(folder / f"3.masks/{number:02}.png")
    data = data_of(folder)
    table = open_index(data)
    assert select(table, data, CLIP).counts() == {"": 4, FEW_MASKS: 1}
    source = FileSource(data, CLIP.model_copy(update={"mask": "object"}))
    frames, masks = source.read(1, [2, 3, 6])
    assert masks is not None and masks.shape == (2, 16, 64)
    assert films.numbers(frames) == [12, 13, 16]
    assert films.numbers(masks[..., None].repeat(3, 3) * 255) == [2, 6]
    _, masks = source.read(2, [2, 4, 5])
    assert masks is not None and masks.mean((1, 2)).tolist() == [0, 1]
    assert FileSource(data, CLIP).read(2, [2])[1] is None  # stage 1 needs no masks
    # other masks change the key of the clip
    Image.new("L", (64, 16), 9).save(folder / "3.masks/00.png")
    assert open_index(data).content(3) != table.content(3)


def test_a_file_that_changed_is_a_bad_clip(folder: Path) -> None:
    source = FileSource(data_of(folder), CLIP)
    film = folder / "0.mp4"
    film.write_bytes(film.read_bytes()[:-100])
    (folder / "1.mp4").unlink()
    for clip_id, message in ((0, "has changed since it was indexed"), (1, "cannot be read")):
        with pytest.raises(BadClip, match=message):
            source.read(clip_id, [0])
    assert source.name(1) == f"1 ({folder / '1.mp4'})"


def test_variable_frame_rates_are_resampled_to_the_rate_of_the_stage(
    films: Films, tmp_path: Path
) -> None:
    times = [*range(0, 800, 40), *range(800, 2000, 80)]
    path = films.write_uneven(tmp_path / "f.mkv", times)
    (tmp_path / "t.csv").write_text(f"path,caption\n{path.name},phone\n")
    clip = CLIP.model_copy(update={"fps": 12.5})
    source = FileSource(data_of(tmp_path / "t.csv"), clip)
    assert source.frame_count(0) == 25
    assert films.numbers(source.read(0, range(25))[0]) == [*range(0, 20, 2), *range(20, 35)]


def test_tars_and_parts_of_videos_are_read_as_frames(
    films: Films, folder: Path, tmp_path: Path
) -> None:
    tar = tmp_path / "00000.tar"
    with tarfile.open(tar, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    with tar.open("r+b") as file:  # cut the last member (a caption) short
        file.truncate(tar.stat().st_size // 10240 * 10240 - 10240)
    source = FileSource(data_of(tar), CLIP)
    assert len(source) >= 3 and source.caption(2) == "film 2"
    assert films.numbers(source.read(2, [0, 6, 23])[0]) == [20, 26, 43]
    row = {"videoID": "3", "timestamp": '[["0:00:00.25", "0:00:00.75"]]', "caption": '["half"]'}
    (folder / "panda.jsonl").write_text(json.dumps(row))
    part = FileSource(data_of(folder / "panda.jsonl"), CLIP)
    assert part.frame_count(0) == 12 and part.caption(0) == "half"
    assert films.numbers(part.read(0, [0, 11])[0]) == [36, 47]


def test_held_out_clips_are_used_for_validation_only(films: Films, tmp_path: Path) -> None:
    """Clips of one video stay together, so that no part of a held-out video is trained on."""
    header = "path,caption,start,end\n"
    lines = []
    for number in range(12):
        films.write(tmp_path / f"{number}.mp4", 24, first=number * 7)
        lines += [f"{number}.mp4,a,0,0.5", f"{number}.mp4,b,0.5,1"]
    (tmp_path / "t.csv").write_text(header + "\n".join(lines) + "\n")
    data = data_of(tmp_path / "t.csv", held_out_share=0.3, threads=2)
    training = FileSource(data, CLIP)
    validation = open_validation_source(data, CLIP, training)
    assert isinstance(validation, FileSource)
    ours, theirs = (
        {s.name(i).split("(")[1] for i in range(len(s))} for s in (training, validation)
    )
    assert len(training) + len(validation) == 24 and len(validation) >= 2 and not ours & theirs
    assert {validation.caption(i) for i in range(len(validation))} == {"a", "b"}
    assert select(open_index(data), data, CLIP).counts()[HELD_OUT] == len(validation)
    none = FileSource(data.model_copy(update={"held_out_share": 0.0}), CLIP)
    assert open_validation_source(data, CLIP, none) is none and len(none) == 24


def test_each_shape_has_an_equal_share_of_the_stickers(sticker_cache: EmojiCache) -> None:
    data = DataConfig(source="mini", path=sticker_cache.folder, clips=600)
    clip = ClipConfig(f=2, width_px=168, height_px=168, shapes=((168, 168), (176, 176)))
    source = StickerSource(data, clip)
    shapes = [source.shape(clip_id) for clip_id in range(600)]
    assert all(0.4 < shapes.count(shape) / 600 < 0.6 for shape in clip.all_shapes)
    assert shapes[:100] == [StickerSource(data, clip).shape(clip_id) for clip_id in range(100)]
