"""Building the index: every clip is probed once, and every unusable one is counted."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from film_data import CLIP, data_of

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.cli import main
from loopanimate_training.config import ClipConfig, DataConfig
from loopanimate_training.data.index.build import MISSING, index_path, open_index, probe_share
from loopanimate_training.data.index.earlier import signature_of
from loopanimate_training.data.index.probe import UNDECODABLE, ProbeResult
from loopanimate_training.data.index.probe_pool import ProbePool
from loopanimate_training.data.index.selection import NO_CAPTION, select
from loopanimate_training.data.index.table import REPEATED
from loopanimate_training.data.index.table_writer import TableWriter
from loopanimate_training.data.readers.rows import Blob, Row
from loopanimate_training.data.shard import Shard
from loopanimate_training.data.source import FileSource

Films = Any  # the fixture of conftest.py


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
    with pytest.raises(
        LoopAnimateError, match=r"none of 10 clips of .* can be used: 6 shorter than 103"
    ):
        FileSource(data, ClipConfig(f=18))

    # the command prints the same, from the same index
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


def test_only_new_clips_are_probed(
    films: Films, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = data_of(folder)
    first = open_index(data)
    assert open_index(data).path == first.path
    # A changed file with the same size and time is not noticed …
    old, stat = folder / "0.mp4", (folder / "0.mp4").stat()
    old.write_bytes(b"\0" * stat.st_size)
    os.utime(old, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # … but a new video, a new caption and a changed video are.
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


def test_an_interrupted_build_continues(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    # Lines of the journal are reused, except for one that was cut off.
    content = "ab" * 16
    signature, result = done[0].split(" ", 1)
    changed = json.dumps({**json.loads(result), "content": content})
    journal.write_text(f"{signature} {changed}\n{done[1]}\n{done[2][:90]}")
    table = open_index(data)
    assert table.content(0) == content and len(table) == 5
    assert select(table, data, CLIP).counts() == {"": 5}
    assert sorted(p.suffix for p in path.parent.iterdir()) == [".clips"]


def test_signatures_differ_between_versions(folder: Path) -> None:
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


def test_the_default_folder_of_the_index(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    bare = DataConfig(source="videos", path=folder)
    assert index_path(bare).parent == tmp_path / "home/loopanimate/index"
    cached = DataConfig(source="videos", path=folder, cache=tmp_path / "cache")
    assert index_path(cached).parent == tmp_path / "cache"
    few = cached.model_copy(update={"clips": 3})
    assert index_path(few) != index_path(cached)


def test_shares_of_several_processes_become_one_index(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone, data = open_index(data_of(folder)), data_of(folder, index=tmp_path / "shared")
    assert [probe_share(data, Shard(number, 3)) for number in range(2)] == [2, 2]
    journals = sorted((tmp_path / "shared").glob("*.journal"))
    lines = [path.read_text().splitlines(keepends=True) for path in journals]
    assert [len(found) for found in lines] == [2, 2]
    assert probe_share(data, Shard(1, 3)) == 2 and journals[1].read_text() == "".join(lines[1])
    journals[0].write_text("".join(lines[0])[:-9])  # killed while it wrote
    probed: list[Path] = []

    def probe(pool: ProbePool, row: Row) -> ProbeResult:
        probed.append(row.media.path)
        return ask(pool, row)

    ask = ProbePool.probe
    monkeypatch.setattr(ProbePool, "probe", probe)
    index = open_index(data)
    assert sorted(path.name for path in probed) == [
        "2.mp4",
        "3.mp4",
    ]  # of the cut line, and the third share
    assert [index.result(n) for n in range(5)] == [alone.result(n) for n in range(5)]
    assert not list((tmp_path / "shared").glob("*.journal"))
