"""Filling the cache: in shares, with interruptions, and without an effect on training."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.cli import main
from loopanimate_training.commands.cache import fill_cache
from loopanimate_training.config import RunConfig
from loopanimate_training.data import cache_filling
from loopanimate_training.data.cache_filling import BAD_CLIPS_FILE, Filled, Shard
from loopanimate_training.data.latent_cache import LatentCache
from loopanimate_training.data.source import FileSource
from loopanimate_training.data.video.bad_clip import BadClip
from loopanimate_training.loop import train
from loopanimate_training.run.log import read_log
from loopanimate_training.signals import caught_signals

pytestmark = pytest.mark.numeric

MakeRun = Callable[..., RunConfig]


FILES = 6 + 4  # windows; three captions and the empty one


def files_in(config: RunConfig) -> dict[str, int]:
    """The files of a cache, and when each was written."""
    assert config.data.cache is not None
    return {path.name: path.stat().st_mtime_ns for path in config.data.cache.rglob("*.safetensors")}


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_log(run / "log.jsonl") if "loss" in row]


def test_the_same_losses_with_and_without_the_cache(make_run: MakeRun, tmp_path: Path) -> None:
    """Bit for bit: object masks, image embeddings and latents of every way back."""
    settings: dict[str, Any] = {"stage": 2, "steps": 3, "clip.mask": "object", "clip.f": 8}
    plain = make_run(out=tmp_path / "plain", **settings, **{"data.cache": "null"})
    touched = make_run(out=tmp_path / "touched", **settings)
    train(plain)
    train(touched)  # fills the cache as it goes
    filled = make_run(out=tmp_path / "filled", **settings, **{"data.cache": tmp_path / "other"})
    assert fill_cache(filled) == Filled(6, 0)
    before = files_in(filled)
    train(filled)
    assert len(losses(plain.out)) == 3 and files_in(filled) == before
    assert losses(plain.out) == losses(touched.out) == losses(filled.out)


def test_shares_make_the_whole(make_run: MakeRun, tmp_path: Path) -> None:
    first = make_run()
    said: list[str] = []
    parts = [fill_cache(first, Shard(number, 2), said.append) for number in range(2)]
    assert [part.windows for part in parts] == [4, 2]
    shared = files_in(first)
    whole = make_run(**{"data.cache": tmp_path / "whole"})
    assert fill_cache(whole).windows == 6 and files_in(whole).keys() == shared.keys()
    assert "4 windows of 2 clips" in said[0] and "0 are in" in said[0] and "free)" in said[0]
    assert "the others and 3 captions need" in said[0] and "and 1 captions need" in said[1]
    again: list[str] = []
    assert fill_cache(first, say=again.append).windows == 6 and files_in(first) == shared
    assert "6 are in" in again[0] and "need 0 B" in again[0]


def test_the_size_is_printed_before_filling(make_run: MakeRun) -> None:
    config, said = make_run(), list[str]()
    fill_cache(config, say=said.append)
    assert config.data.cache is not None
    size = sum(path.stat().st_size for path in config.data.cache.rglob("*.safetensors"))
    assert len(files_in(config)) == FILES
    told, unit = said[0].split("captions need ")[1].split(" (")[0].split()
    assert float(told) * {"kB": 1e3, "MB": 1e6}[unit] == pytest.approx(size, rel=0.02)


def test_interrupted_and_started_again(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_run(**{"data.threads": 1})
    write, written, caught = LatentCache._write, 0, list[int]()

    @contextmanager
    def watched() -> Iterator[list[int]]:
        nonlocal caught
        with caught_signals() as caught:
            yield caught

    def write_and_signal(*arguments: Any) -> None:
        nonlocal written
        write(*arguments)
        written += 1
        if written == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            wait_until("the signal is caught", lambda: caught)  # on the main thread

    monkeypatch.setattr(cache_filling, "caught_signals", watched)
    monkeypatch.setattr(LatentCache, "_write", write_and_signal)
    first = fill_cache(config)
    done = files_in(config)
    assert first.signal_number == signal.SIGTERM and 3 <= len(done) < FILES
    assert first.windows <= len(done)
    assert fill_cache(config) == Filled(6, 0)
    assert written == FILES  # nothing twice
    assert {name: files_in(config)[name] for name in done} == done
    assert config.data.cache is not None
    assert not list(config.data.cache.rglob(".partial-*"))


def test_what_a_killed_process_left_is_removed(make_run: MakeRun) -> None:
    config = make_run()
    assert config.data.cache is not None
    folder = config.data.cache / "ab"
    folder.mkdir(parents=True)
    old, young = folder / ".partial-1.safetensors", folder / ".partial-2.safetensors"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 7200))
    fill_cache(config)
    assert not old.exists() and young.exists()


def test_a_disk_too_small_is_said_before(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 1000))
    config = make_run()
    with pytest.raises(LoopAnimateError, match=r"needs .* kB more, but .* has 1 kB free"):
        fill_cache(config)
    assert not files_in(config)


def test_moved_data_fits_its_cache(make_run: MakeRun, videos: Path, tmp_path: Path) -> None:
    config = make_run()
    fill_cache(config)
    shutil.copytree(videos, tmp_path / "moved")
    moved = make_run(**{"data.path": tmp_path / "moved"})
    source, there = FileSource(moved.data, moved.clip), files_in(config)
    assert fill_cache(moved).windows == 6 and files_in(moved) == there
    (tmp_path / "moved" / "clip0.txt").write_text("another caption leaves the pictures")
    assert fill_cache(moved).windows == 6
    after = files_in(moved)
    assert len(after) == FILES + 1 and after.items() > there.items()
    assert source.key(0) == FileSource(config.data, config.clip).key(0)


def test_bad_clips_are_named_and_too_many_are_an_error(
    make_run: MakeRun, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(videos, tmp_path / "films")
    config = make_run(**{"data.path": tmp_path / "films"})
    FileSource(config.data, config.clip)  # indexed while all was well
    index = FileSource.__init__

    def then_damage(self: FileSource, *arguments: Any) -> None:
        index(self, *arguments)
        for name in names:
            (tmp_path / "films" / name).write_bytes(b"x")

    monkeypatch.setattr(FileSource, "__init__", then_damage)
    names = ["clip1.mp4"]
    assert config.data.cache is not None
    assert fill_cache(config) == Filled(4, 1)
    text = (config.data.cache / BAD_CLIPS_FILE).read_text()
    assert text.count("\n") == 1 and "clip1" in text and "has changed since" in text
    monkeypatch.undo()
    shutil.copy(videos / "clip1.mp4", tmp_path / "films")
    FileSource(config.data, config.clip)
    monkeypatch.setattr(FileSource, "__init__", then_damage)
    names[:] = ["clip0.mp4", "clip1.mp4"]
    other = make_run(**{"data.path": tmp_path / "films", "data.cache": tmp_path / "new"})
    with pytest.raises(LoopAnimateError, match="2 of 3 clips could not be read"):
        fill_cache(other)


def test_bad_clips_are_named_once_and_counted_by_share(
    make_run: MakeRun, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(videos, tmp_path / "films")
    config = make_run(**{"data.path": tmp_path / "films", "data.max_bad_share": 0.4})
    read = FileSource.read

    def read_but_two(self: FileSource, clip_id: int, *arguments: Any) -> Any:
        if clip_id in (0, 2):
            raise BadClip("the disk does not answer")
        return read(self, clip_id, *arguments)

    monkeypatch.setattr(FileSource, "read", read_but_two)
    assert config.data.cache is not None
    listing = config.data.cache / BAD_CLIPS_FILE
    for _ in range(2):
        assert fill_cache(config, Shard(1, 2)) == Filled(2, 0)
        with pytest.raises(LoopAnimateError, match="2 of 2 clips could not be read"):
            fill_cache(config, Shard(0, 2))  # two of the three clips are in this share
        assert listing.read_text().count("\n") == 2
    none = make_run(**{"data.path": tmp_path / "films", "data.max_bad_share": 0})
    with pytest.raises(LoopAnimateError, match="1 of 3 clips could not be read"):
        fill_cache(none)


def test_the_command_takes_a_share(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(make_run().model_dump_json())
    for shard, code, text in (
        ("2/2", 0, "2 windows of 1 clips"),
        ("3/2", 1, "the first number must be 1 to 2"),
        ("half", 1, "must look like 2/8"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["cache", "--stage", "1", "--config", str(file), "--shard", shard])
        printed = capsys.readouterr()
        assert ended.value.code == code and text in printed.out + printed.err


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 60))
def test_shares_are_a_partition(count: int, processes: int, total: int) -> None:
    shares = [
        Shard(n, count).split(p, processes).of(total)
        for n in range(count)
        for p in range(processes)
    ]
    assert sorted(number for share in shares for number in share) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
