"""The index file: it holds what was written, and damage is noticed."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.data.index.probe import ProbeResult
from loopanimate_training.data.index.table import REPEATED, ClipTable
from loopanimate_training.data.index.table_writer import TableWriter
from loopanimate_training.data.readers.rows import Blob, Row
from loopanimate_training.data.video.facts import VideoFacts


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
