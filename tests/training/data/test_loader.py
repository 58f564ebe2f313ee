"""A batch is a pure function of seed and step, with or without a cache; bad clips are replaced."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from loopanimate_core.bundle import read_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.shapes import Shape
from loopanimate_training.commands.cache import fill_cache
from loopanimate_training.config import RunConfig
from loopanimate_training.data import latent_cache
from loopanimate_training.data.batch import Batch
from loopanimate_training.data.cache_filling import window_starts
from loopanimate_training.data.loader import ClipLoader
from loopanimate_training.data.quarantine import require_few
from loopanimate_training.data.source import FileSource
from loopanimate_training.setup import make_loader

pytestmark = pytest.mark.numeric

MakeRun = Callable[..., RunConfig]


def open_loader(config: RunConfig, rank: int = 0, world: int = 1) -> ClipLoader:
    loader = make_loader(config, read_bundle(config.model.start), Accelerator(cpu=True))
    loader.rank, loader.world = rank, world
    return loader


def tensors(batch: Batch) -> list[torch.Tensor]:
    return list(vars(batch).values())


def assert_same(a: Batch, b: Batch) -> None:
    assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def test_batches_are_a_function_of_seed_and_step(make_run: MakeRun) -> None:
    loader, again = open_loader(make_run()), open_loader(make_run())
    later = again.batch(5, 0)  # without the steps before it
    for step in range(5):
        loader.batch(step, 0)
    assert_same(loader.batch(5, 0), later)
    other = open_loader(make_run(seed=1)).batch(5, 0)
    assert not torch.equal(other.noise, later.noise)


def test_processes_and_accumulation_share_the_same_clips(make_run: MakeRun) -> None:
    whole = open_loader(make_run(**{"batch.size": 4})).batch(3, 0)
    split = [open_loader(make_run(**{"batch.size": 4}), rank, 2).batch(3, 0) for rank in range(2)]
    micro = [open_loader(make_run(**{"batch.accumulate": 2})).batch(3, i) for i in range(2)]
    for parts in (split, micro):
        for i, column in enumerate(tensors(whole)):
            assert torch.equal(column, torch.cat([tensors(part)[i] for part in parts]))


def test_cache_changes_nothing(make_run: MakeRun) -> None:
    cached = open_loader(make_run())
    assert_same(cached.batch(0, 0), cached.batch(0, 0))
    plain = open_loader(make_run(**{"data.cache": "null"}))
    assert_same(cached.batch(0, 0), plain.batch(0, 0))


def test_cache_command_encodes_everything_once(make_run: MakeRun) -> None:
    config = make_run()
    filled = fill_cache(config)
    files = sorted((config.data.cache or Path()).rglob("*.safetensors"))
    assert (filled.windows, filled.bad_clips) == (6, 0)
    assert len(files) == 6 + 4  # 6 windows; three captions and the empty one
    times = [file.stat().st_mtime_ns for file in files]
    loader = open_loader(config)
    for step in range(4):
        loader.batch(step, 0)
    assert [file.stat().st_mtime_ns for file in files] == times


def test_a_damaged_cache_file_is_encoded_again(make_run: MakeRun) -> None:
    config = make_run()
    before = open_loader(config).batch(0, 0)
    for file in (config.data.cache or Path()).rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    assert_same(open_loader(config).batch(0, 0), before)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_an_unreadable_cache_file_is_encoded_again(
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    number: int,
) -> None:
    config = make_run()
    before = open_loader(config).batch(0, 0)

    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(latent_cache, "load_file", fail)
    assert_same(open_loader(config).batch(0, 0), before)
    assert "cannot be read and is encoded again" in caplog.text


def test_every_clip_once_per_epoch_at_spread_times(make_run: MakeRun) -> None:
    loader = open_loader(make_run(**{"batch.size": 4}))
    for epoch in range(3):
        assert sorted(loader.clip_id(3 * epoch + i) for i in range(3)) == [0, 1, 2]
    times = loader.batch(0, 0).timesteps.sort().values
    assert set(times.diff().tolist()) <= {249, 250, 251}


def test_timesteps_may_be_drawn_each_on_its_own(make_run: MakeRun) -> None:
    settings = {"batch.size": 64, "data.cache": "null"}
    alone = open_loader(make_run(**settings, **{"loss.spread_timesteps": False}))
    times = torch.tensor([alone._timestep(number) for number in range(2000)])
    assert abs(float(times.float().mean()) - 500) < 40 and len(set(times.tolist())) > 700
    gaps = times[:64].sort().values.diff()
    assert int(gaps.max()) > 2 * 1000 / 64  # evenly spread ones have the same distance


def test_without_a_number_of_starts_every_start_is_drawn(make_run: MakeRun) -> None:
    loader = open_loader(make_run(**{"clip.starts_per_clip": "null"}))
    room = 110 - loader.config.clip.span_frames
    starts = [loader.cache.start_of(0, window) for window in range(10 * room)]
    assert sorted(set(starts)) == list(range(room + 1))
    assert window_starts(loader.cache, 0) == list(range(room + 1))


def test_loops_close_and_conditions_drop_at_their_rates(make_run: MakeRun) -> None:
    loader = open_loader(
        make_run(**{"batch.size": 200, "loss.drop_image": 0.3, "loss.drop_text": 0.2})
    )
    batch = loader.batch(0, 0)
    assert batch.latents.shape == (200, 4, 15, 4, 4)
    assert torch.equal(batch.latents[:, :, 0], batch.latents[:, :, -1])
    empty = loader.cache.text("")
    assert 0.4 < batch.keep_turn.float().mean() < 0.6
    assert 0.1 < (batch.text == empty).flatten(1).all(1).float().mean() < 0.3
    assert 0.2 < (batch.image_embeds == 0).flatten(1).all(1).float().mean() < 0.4


def test_frame_folders_with_masks(make_run: MakeRun, tmp_path: Path) -> None:
    root = tmp_path / "frames"
    for folder in ("a", "a.masks"):
        (root / folder).mkdir(parents=True)
    (root / "a.txt").write_text("a box")
    for i in range(43):
        Image.new("RGB", (40, 40), (i, 0, 0)).save(root / "a" / f"{i:03}.png")
        mask = Image.new("L", (40, 40), 0)
        mask.paste(255, (0, 0, 20, 40) if i == 0 else (20, 0, 40, 40))
        mask.save(root / "a.masks" / f"{i:03}.png")
    config = make_run(**{"data.source": "frames", "data.path": root, "clip.mask": "object"})
    source = FileSource(config.data, config.clip)
    frames, masks = source.read(0, [0, 1, 41])
    assert len(source) == 1 and source.caption(0) == "a box"
    assert frames[2, 0, 0].tolist() == [41, 0, 0]
    assert masks is not None and len(masks) == 2  # masks of the end frames only
    assert masks[0, 0, 0] and not masks[1, 0, 0]
    latent_masks = open_loader(config).batch(0, 0).masks[0]
    assert latent_masks[0, 0, :, :2].min() == 1 and latent_masks[0, 0, :, 2:].max() == 0
    assert torch.equal(latent_masks[1], 1 - latent_masks[0])


SHAPES = "[[32, 32], [40, 24], [24, 40]]"  # all of about the same area


@pytest.fixture
def shaped(tmp_path: Path) -> dict[str, object]:
    """Settings of a run over ten clips, wide, high and square, that trains at three shapes."""
    root = tmp_path / "frames"
    for number in range(10):
        (root / f"{number}").mkdir(parents=True)
        size = [(64, 36), (30, 60), (50, 50), (90, 60), (70, 66)][number % 5]
        for i in range(43):
            Image.new("RGB", size, (20 * number, i, 0)).save(root / f"{number}" / f"{i:03}.png")
    return {
        "clip.shapes": SHAPES,
        "data.source": "frames",
        "data.path": root,
        "data.uncaptioned": "keep",
        "data.index": tmp_path / "index",
    }


def test_every_batch_has_the_shape_of_its_clips(
    make_run: MakeRun, shaped: dict[str, object]
) -> None:
    loader = open_loader(make_run(**shaped))
    source = loader.cache.source
    wide, high, square = Shape(40, 24), Shape(24, 40), Shape(32, 32)
    assert [source.shape(i) for i in range(5)] == [wide, high, square, wide, square]
    seen = set()
    for step in range(12):
        clip_ids = [loader.clip_id(number) for number in loader.numbers(step, 0)]
        (shape,) = {source.shape(clip_id) for clip_id in clip_ids}
        batch = loader.batch(step, 0)
        assert batch.latents.shape[3:] == (shape.height_px // 8, shape.width_px // 8)
        assert batch.masks.shape[3:] == batch.latents.shape[3:]
        seen.add(shape)
    assert seen == {wide, high, square}


def test_shapes_do_not_depend_on_processes_and_accumulation(
    make_run: MakeRun, shaped: dict[str, object]
) -> None:
    whole = open_loader(make_run(**shaped, **{"batch.size": 4}))
    split = [open_loader(make_run(**shaped, **{"batch.size": 4}), rank, 2) for rank in range(2)]
    micro = open_loader(make_run(**shaped, **{"batch.size": 2, "batch.accumulate": 2}))
    for step in range(4):
        expected = tensors(whole.batch(step, 0))
        parts = [loader.batch(step, 0) for loader in split]
        turns = [micro.batch(step, i) for i in range(2)]
        for found in (parts, turns):
            for i, column in enumerate(expected):
                assert torch.equal(column, torch.cat([tensors(part)[i] for part in found]))


def test_the_cache_of_a_run_with_shapes_is_filled_and_shared(
    make_run: MakeRun, shaped: dict[str, object]
) -> None:
    config = make_run(**shaped)
    assert (filled := fill_cache(config)).windows == 10 and filled.bad_clips == 0
    files = sorted((config.data.cache or Path()).rglob("*.safetensors"))
    loader = open_loader(config)
    for step in range(12):
        loader.batch(step, 0)
    assert sorted((config.data.cache or Path()).rglob("*.safetensors")) == files
    # A square clip has the file that a run without shapes gave it.
    plain = open_loader(make_run(**{**shaped, "clip.shapes": "[]"}))
    shared = [plain.cache.path_of(i, 0) == loader.cache.path_of(i, 0) for i in range(10)]
    assert shared == [loader.cache.source.shape(i) == Shape(32, 32) for i in range(10)]


def test_a_substitute_takes_the_shape_of_its_batch(
    make_run: MakeRun, shaped: dict[str, object]
) -> None:
    config = make_run(**shaped, **{"data.max_bad_share": 0.5})
    loader = open_loader(config)
    for name in "16":  # all the high clips
        spoil(shaped, name)
    shapes = {tuple(loader.batch(step, 0).latents.shape[3:]) for step in range(12)}
    assert shapes == {(4, 4), (3, 5), (5, 3)}


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., dict[str, object]]:
    """`pictures("ab")`: two clips in a folder `frames`, and the settings of a run over them."""

    def make(names: str) -> dict[str, object]:
        root = tmp_path / "frames"
        for name in names:
            (root / name).mkdir(parents=True)
            for i in range(43):
                picture = Image.new("RGB", (32, 32), (ord(name), i, 0))
                picture.save(root / name / f"{i:03}.png")
        (tmp_path / "run").mkdir()
        return {
            "data.source": "frames",
            "data.path": root,
            "data.cache": "null",
            "data.uncaptioned": "keep",
            "data.index": tmp_path / "index",
        }

    return make


def spoil(settings: dict[str, object], name: str) -> None:
    (Path(str(settings["data.path"])) / name / "000.png").write_bytes(b"not a picture")


def take_steps(loader: ClipLoader, steps: int = 3) -> None:
    for step in range(steps):
        loader.batch(step, 0)


def test_bad_clips_are_set_aside_and_too_many_stop_the_run(
    make_run: MakeRun, pictures: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    settings = pictures("ab")
    loader = open_loader(make_run(**settings, **{"data.max_bad_share": 0.5}))
    spoil(settings, "b")
    take_steps(loader)
    assert "cannot be read" in (tmp_path / "run" / "quarantine.jsonl").read_text()
    spoil(settings, "a")
    with pytest.raises(LoopAnimateError, match="2 of 2 clips could not be read"):
        take_steps(loader)


def test_if_no_bad_clips_are_allowed_the_first_one_stops_the_run(
    make_run: MakeRun, pictures: Callable[..., dict[str, object]]
) -> None:
    settings = pictures("ab")
    loader = open_loader(make_run(**settings, **{"data.max_bad_share": 0}))
    spoil(settings, "b")
    with pytest.raises(LoopAnimateError, match=r"1 of 2 clips .*\.max_bad_share = 0 allows"):
        take_steps(loader)


def test_a_resumed_run_remembers_its_bad_clips(
    make_run: MakeRun, pictures: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    settings = {**pictures("abcd"), "data.max_bad_share": 0.5}
    loaders = [open_loader(make_run(**settings)) for _ in range(4)]
    listing = tmp_path / "run" / "quarantine.jsonl"
    for name, loader in zip(
        "ab", loaders, strict=False
    ):  # a run and its resume, with one bad clip each
        spoil(settings, name)
        with loader.batches(0):
            take_steps(loader, 8)
        with listing.open("a") as file:
            file.write('{"clip": "cut off by a cra')
    with loaders[2].batches(0):
        take_steps(loaders[2], 8)
    names = [json.loads(line)["clip"][0] for line in listing.read_text().splitlines()[0::2]]
    assert names == ["a", "b"]
    spoil(settings, "c")
    with pytest.raises(LoopAnimateError, match="3 of 4 clips"), loaders[2].batches(0):
        take_steps(loaders[2], 8)
    with pytest.raises(LoopAnimateError, match="3 of 4 clips"), loaders[3].batches(0):
        pass
    shutil.rmtree(tmp_path / "frames" / "a")
    again = open_loader(make_run(**settings))  # the index lists only readable clips
    with again.batches(0):
        take_steps(again)


def test_a_repaired_clip_is_no_longer_counted(
    make_run: MakeRun, pictures: Callable[..., dict[str, object]], tmp_path: Path
) -> None:
    settings = {**pictures("ab"), "data.max_bad_share": 0}
    loader = open_loader(make_run(**settings))
    spoil(settings, "b")
    with pytest.raises(LoopAnimateError, match="1 of 2 clips"):
        take_steps(loader)
    Image.new("RGB", (32, 32), "blue").save(tmp_path / "frames" / "b" / "000.png")
    repaired = open_loader(make_run(**settings))
    with repaired.batches(0):
        take_steps(repaired)
    assert len(repaired.cache.source) == 2


@pytest.mark.parametrize(
    ("bad", "count", "share", "few"),
    [
        (0, 9, 0.0, True),
        (1, 9, 0.0, False),
        (1, 1000, 0.0, False),
        (1, 9, 0.05, True),
        (2, 9, 0.05, False),
        (5, 100, 0.05, True),
        (6, 100, 0.05, False),
    ],
)
def test_limit_of_bad_clips(bad: int, count: int, share: float, few: bool) -> None:
    try:
        require_few(bad, count, share, Path("bad.jsonl"))
    except LoopAnimateError as error:
        assert not few and f"{bad} of {count} clips" in str(error)
    else:
        assert few
