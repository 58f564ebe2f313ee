"""The index: every clip looked at once, in a child process, and every useless one counted."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import random
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.cli import main
from loopanimate_training.config import ClipConfig, DataConfig
from loopanimate_training.data.index.build import MISSING, index_path, open_index
from loopanimate_training.data.index.earlier import signature_of
from loopanimate_training.data.index.probe import (
    FEW_MASKS,
    UNDECODABLE,
    ProbeResult,
    probe,
    unusable,
)
from loopanimate_training.data.index.probe_pool import CRASHES, TOO_SLOW, ProbePool
from loopanimate_training.data.index.selection import HELD_OUT, NO_CAPTION, is_held_out, select
from loopanimate_training.data.index.table import REPEATED, ClipTable
from loopanimate_training.data.index.table_writer import TableWriter
from loopanimate_training.data.readers.rows import Blob, Row
from loopanimate_training.data.source import FileSource, open_validation_source
from loopanimate_training.data.video.bad_clip import BadClip
from loopanimate_training.data.video.facts import VideoFacts
from loopanimate_training.storage import locks
from loopanimate_training.storage.locks import claim_of, locked
from loopanimate_training.storage.threads import ordered_map

Films = Any  # the fixture of conftest.py
CLIP = ClipConfig(f=2, mask="ones")  # needs 7 frames


@pytest.fixture
def folder(films: Films, tmp_path: Path) -> Path:
    """Five films of 24 frames with captions."""
    for number in range(5):
        films.write(tmp_path / f"films/{number}.mp4", 24, first=10 * number)
        (tmp_path / f"films/{number}.txt").write_text(f"film {number}")
    return tmp_path / "films"


def data_of(path: Path, **changes: Any) -> DataConfig:
    return DataConfig(
        **{"source": "videos", "path": path, "index": path.parent / "index", **changes}
    )


def fake_result(number: int, **changes: Any) -> ProbeResult:
    facts = VideoFacts(24, 64, 16, 0, 1 / 24000, 0, 1000.0)
    result = ProbeResult(facts, f"{number:032x}", f"{number:016x}")
    return dataclasses.replace(result, **changes)


def write_table(path: Path, rows: list[tuple[Row, ProbeResult]]) -> ClipTable:
    with TableWriter(path) as writer:
        for number, (row, result) in enumerate(rows):
            writer.add(row, result, number.to_bytes(16, "little"), (1, number))
        writer.finish("state", "test")
    return ClipTable(path)


# ------------------------------------------------------------------------------ the file
finite = st.floats(-1e6, 1e6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
facts_strategy = st.builds(
    VideoFacts,
    frames=st.integers(0, 5),
    width_px=st.integers(0, 9000),
    height_px=st.integers(0, 9000),
    rotation=st.integers(0, 3),
    tick_s=st.floats(1e-9, 1),
    first_pts=st.integers(-(2**60), 2**60),
    ticks_per_frame=finite,
    damaged=st.booleans(),
    counted=st.booleans(),
)
rows_strategy = st.builds(
    Row,
    id=texts,
    media=st.builds(
        Blob, st.sampled_from([Path("/a/b.mp4"), Path("/caf\udce9")]), st.integers(0, 2**60)
    ),
    caption=texts,
    masks=st.none() | st.builds(Blob, st.just(Path("/m")), st.integers(0, 9), st.integers(-1, 9)),
    start_s=st.none() | st.floats(0, 1e6),
    end_s=st.none() | st.floats(0, 1e6),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.lists(st.tuples(rows_strategy, facts_strategy, st.booleans()), max_size=4))
def test_a_table_gives_back_what_was_written(
    tmp_path: Path, items: list[tuple[Row, VideoFacts, bool]]
) -> None:
    rows = []
    for number, (row, facts, uneven) in enumerate(items):
        times = tuple(range(0, 7 * facts.frames, 7)) if uneven else ()
        rows.append((row, fake_result(number, facts=dataclasses.replace(facts, times=times))))
    table = write_table(tmp_path / "t.clips", rows)
    assert len(table) == len(rows)
    for number, (row, result) in enumerate(rows):
        assert table.row(number) == row
        assert table.result(number) == result
        assert table.stat(number) == (1, number)


def test_only_the_first_of_equal_clips_stays(tmp_path: Path) -> None:
    row = Row("a", Blob(Path("a.mp4")), "same")
    other = dataclasses.replace(row, caption="other")
    bad = dataclasses.replace(row, reason="broken")
    rows = [(row, 1), (bad, 1), (row, 1), (other, 1), (row, 2), (row, 1)]
    table = write_table(tmp_path / "t.clips", [(r, fake_result(n)) for r, n in rows])
    reasons = [table.row(i).reason for i in range(6)]
    assert reasons == ["", "broken", REPEATED, "", "", REPEATED]


@pytest.mark.parametrize("damage", ["empty", "other", "cut", "header"])
def test_a_damaged_index_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "t.clips"
    write_table(path, [(Row("a", Blob(Path("a"))), fake_result(i)) for i in range(9)])
    data = path.read_bytes()
    damaged = {"empty": b"", "other": b"x" * 99, "cut": data[:-5], "header": data[:40]}[damage]
    path.write_bytes(damaged)
    with pytest.raises(LoopAnimateError, match=r"t\.clips"):
        ClipTable(path)


# ------------------------------------------------------------------------- building it
def test_every_reason_is_counted(films: Films, folder: Path, capsys: Any, tmp_path: Path) -> None:
    films.write(folder / "short.mp4", 6)
    films.write(folder / "silent.mp4", 24, first=90)
    (folder / "page.mp4").write_text("<html>")
    lines = [f"{n}.mp4,film {n}" for n in range(5)]
    lines += ["short.mp4,s", "silent.mp4,", "page.mp4,p", "gone.mp4,g", "0.mp4,film 0"]
    (folder / "metadata.csv").write_text("path,caption\n" + "\n".join(lines) + "\n")
    data = data_of(folder, threads=2)
    table = open_index(data)
    expected = {
        "": 5,
        "shorter than 7 frames": 1,
        NO_CAPTION: 1,
        UNDECODABLE: 1,
        MISSING: 1,
        REPEATED: 1,
    }
    assert select(table, data, CLIP).counts() == expected
    kept = data.model_copy(update={"uncaptioned": "keep"})
    assert select(table, kept, CLIP).counts()[""] == 6
    fast = CLIP.model_copy(update={"fps": 30.0})
    assert select(table, data, fast).counts()["slower than 30 frames per second"] == 6
    half = CLIP.model_copy(update={"fps": 12.0})
    assert select(table, data, half).frames[0] == 12
    with pytest.raises(LoopAnimateError, match="none of 10 clips can be used: 6 shorter than 103"):
        FileSource(data, ClipConfig(f=18))

    # the same as a command, from the same index
    options = ["--set", f"data.index={data.index}", "--list", str(tmp_path / "left-out.jsonl")]
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(folder), *options])
    printed = capsys.readouterr().out
    assert ended.value.code == 0 and "csv table, 10 clips" in printed
    assert [line.split()[-3:] for line in printed.splitlines() if "cannot be decoded" in line] == [
        ["1", "1", "1"]
    ]
    assert "64 x 16" in printed and "source frames needed" in printed
    left_out = [json.loads(line) for line in (tmp_path / "left-out.jsonl").open()]
    assert len(left_out) == 10 and left_out[8]["reason"] == MISSING


def test_only_what_is_new_is_examined(
    films: Films, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(folder)
    first = open_index(data)
    assert open_index(data).path == first.path
    # Other content under the same size and time is not looked at again …
    old, stat = folder / "0.mp4", (folder / "0.mp4").stat()
    old.write_bytes(b"\0" * stat.st_size)
    os.utime(old, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # … while a new film, a new caption and a changed film are noticed.
    films.write(folder / "5.mp4", 24, first=77)
    (folder / "5.txt").write_text("film 5")
    (folder / "1.txt").write_text("another caption")
    films.write(folder / "2.mp4", 30, first=99)
    second = open_index(data)
    assert len(second) == 6 and second.content(0) == first.content(0)
    assert second.row(1).caption == "another caption"
    assert second.facts(2).frames == 30 and second.content(2) != first.content(2)
    second.path.write_bytes(b"damaged")
    with caplog.at_level(logging.WARNING):
        assert len(open_index(data)) == 6
    assert "it will be rebuilt" in caplog.text


def test_an_interrupted_examination_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(folder)
    path = index_path(data)
    add, count = TableWriter.add, 0

    def interrupted(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        add(*arguments)

    monkeypatch.setattr(TableWriter, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        open_index(data)
    monkeypatch.undo()
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".journal"]
    journal = path.with_suffix(".journal")
    done = journal.read_text().splitlines()
    assert len(done) == 3
    # What the journal says is believed, but for a line that was cut off.
    content = "ab" * 16
    signature, result = done[0].split(" ", 1)
    changed = json.dumps({**json.loads(result), "content": content})
    journal.write_text(f"{signature} {changed}\n{done[1]}\n{done[2][:90]}")
    table = open_index(data)
    assert table.content(0) == content and len(table) == 5
    assert select(table, data, CLIP).counts() == {"": 5}
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".clips"]


def test_moved_data_keeps_its_content_keys(folder: Path) -> None:
    before = FileSource(data_of(folder), CLIP)
    keys = [before.key(i) for i in range(len(before))]
    moved = folder.rename(folder.parent / "elsewhere")
    after = FileSource(data_of(moved), CLIP)
    assert [after.key(i) for i in range(len(after))] == keys and len(set(keys)) == 5
    slow = FileSource(data_of(moved), CLIP.model_copy(update={"fps": 12.0}))
    assert slow.key(0) not in keys


def test_poison_costs_a_clip_and_not_the_run(folder: Path) -> None:
    """A file that is never read to its end, and a decoder that dies: here a pipe, and a kill."""
    pipe = folder / "poison.mp4"
    os.mkfifo(pipe)
    good, poison = Row("0", Blob(folder / "0.mp4")), Row("p", Blob(pipe))
    with ProbePool(1, time_limit_s=0.5) as pool:
        assert pool.probe(poison).reason == TOO_SLOW
    with ProbePool(1) as pool:
        answers: list[ProbeResult] = []
        thread = threading.Thread(target=lambda: answers.append(pool.probe(poison)))
        thread.start()
        while not pool._children:
            time.sleep(0.01)
        next(iter(pool._children)).kill()
        thread.join()
        assert answers == [unusable(CRASHES)]
        assert pool.probe(good) == probe(good)


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
    assert FileSource(data, CLIP).read(2, [2])[1] is None  # stage 1 wants none
    # other masks are another clip
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


def test_uneven_films_are_read_at_the_rate_of_the_stage(films: Films, tmp_path: Path) -> None:
    times = [*range(0, 800, 40), *range(800, 2000, 80)]
    path = films.write_uneven(tmp_path / "f.mkv", times)
    (tmp_path / "t.csv").write_text(f"path,caption\n{path.name},phone\n")
    clip = CLIP.model_copy(update={"fps": 12.5})
    source = FileSource(data_of(tmp_path / "t.csv"), clip)
    assert source.frame_count(0) == 25
    assert films.numbers(source.read(0, range(25))[0]) == [*range(0, 20, 2), *range(20, 35)]


def test_tars_and_parts_end_up_as_frames(films: Films, folder: Path, tmp_path: Path) -> None:
    tar = tmp_path / "00000.tar"
    with tarfile.open(tar, "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, path.name)
    with tar.open("r+b") as file:  # the last member is cut off, in its caption
        file.truncate(tar.stat().st_size // 10240 * 10240 - 10240)
    source = FileSource(data_of(tar), CLIP)
    assert len(source) >= 3 and source.caption(2) == "film 2"
    assert films.numbers(source.read(2, [0, 6, 23])[0]) == [20, 26, 43]
    row = {"videoID": "3", "timestamp": '[["0:00:00.25", "0:00:00.75"]]', "caption": '["half"]'}
    (folder / "panda.jsonl").write_text(json.dumps(row))
    part = FileSource(data_of(folder / "panda.jsonl"), CLIP)
    assert part.frame_count(0) == 12 and part.caption(0) == "half"
    assert films.numbers(part.read(0, [0, 11])[0]) == [36, 47]


# -------------------------------------------------------------------------- held out
@given(st.integers(0, 2**32), st.floats(0.01, 0.6))
def test_the_held_out_share_is_a_share(seed: int, share: float) -> None:
    origins = np.random.default_rng(seed).integers(0, 2**64, 4000, np.uint64)
    chosen = is_held_out(origins, share)
    assert abs(chosen.mean() - share) < 0.05
    assert np.array_equal(is_held_out(origins[::-1], share), chosen[::-1])
    assert not (chosen & ~is_held_out(origins, min(share + 0.2, 1.0))).any()


def test_held_out_clips_are_for_sheets_alone(films: Films, tmp_path: Path) -> None:
    """Clips cut from one film stay together, so that nothing of a held-out film is trained on."""
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


# ----------------------------------------------------------------------- shared tools
def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        with locked(tmp_path / "a.lock", poll_s=0.005):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and not list(tmp_path.iterdir())
    abandoned = tmp_path / "b.lock"
    abandoned.write_text("process 1 on another machine")
    os.utime(abandoned, (0, time.time() - 90))
    with locked(abandoned):
        assert "process 1 on" not in abandoned.read_text()


@pytest.mark.parametrize("crash_while_taking_over", [False, True])
def test_an_abandoned_lock_is_taken_over_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_while_taking_over: bool
) -> None:
    """Waiters that find it abandoned at the same moment must not remove each other's new locks."""
    lock, inside, overlaps, turns = tmp_path / "a.lock", [0], [0], [0]
    barrier, age_s = threading.Barrier(12), locks._age_s

    def slow_age_s(path: Path) -> float:  # a network's folder: what was seen may be over by now
        found = age_s(path)
        time.sleep(random.uniform(0, 0.005))
        return found

    monkeypatch.setattr(locks, "_age_s", slow_age_s)

    def work() -> None:
        barrier.wait()
        with locked(lock, poll_s=0.001):
            inside[0] += 1
            overlaps[0] += inside[0] > 1
            time.sleep(0.001)
            turns[0] += 1
            inside[0] -= 1

    for _ in range(8):
        for path in (lock, claim_of(lock))[: 1 + crash_while_taking_over]:
            path.write_text("process 1 on another machine")
            os.utime(path, (0, time.time() - 90))
        threads = [threading.Thread(target=work) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert overlaps == [0] and turns == [96] and not list(tmp_path.iterdir())


def test_a_holder_that_was_thought_gone_leaves_the_lock_of_the_next(tmp_path: Path) -> None:
    lock = tmp_path / "a.lock"
    with locked(lock):
        lock.unlink()
        lock.write_text("process 1 on another machine")
        os.utime(lock, (0, 1000))
    assert lock.read_text() == "process 1 on another machine" and lock.stat().st_mtime == 1000


def test_a_lock_that_the_disk_does_not_take_is_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(LoopAnimateError, match="No space left on device"), locked(tmp_path / "a"):
        pass
    assert not list(tmp_path.iterdir())


@given(st.integers(0, 30), st.integers(1, 4), st.integers(1, 9))
def test_ordered_map_is_map(count: int, threads: int, ahead: int) -> None:
    taken = 0

    def items() -> Any:
        nonlocal taken
        for number in range(count):
            taken += 1
            yield number

    for number, result in enumerate(ordered_map(lambda x: x * x, items(), threads, ahead)):
        assert result == number * number and taken <= number + ahead


def test_signatures_tell_versions_apart(folder: Path) -> None:
    row = Row("0", Blob(folder / "0.mp4"), "caption")
    others = [
        dataclasses.replace(row, media=Blob(folder / "1.mp4")),
        dataclasses.replace(row, media=Blob(folder / "0.mp4", 1, 5)),
        dataclasses.replace(row, start_s=1.0),
        dataclasses.replace(row, end_s=1.0),
        dataclasses.replace(row, masks=Blob(folder / "0.mp4")),
    ]
    signatures = {signature_of(r) for r in (row, *others)}
    assert len(signatures) == 6
    assert signature_of(dataclasses.replace(row, caption="another")) in signatures


def test_the_index_has_a_place_without_settings(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    bare = DataConfig(source="videos", path=folder)
    assert index_path(bare).parent == tmp_path / "home/loopanimate/index"
    cached = DataConfig(source="videos", path=folder, cache=tmp_path / "cache")
    assert index_path(cached).parent == tmp_path / "cache"
    few = cached.model_copy(update={"clips": 3})
    assert index_path(few) != index_path(cached)
