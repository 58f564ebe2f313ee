"""Readers: real column names and unusual rows of each kind of data set. No video is decoded."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import DataConfig
from loopanimate_training.data.readers.detect import open_reader
from loopanimate_training.data.readers.layouts import CURATED_COLUMNS
from loopanimate_training.data.readers.rows import (
    BAD_ROW,
    BAD_TAR,
    FOLDER_UNREADABLE,
    NOT_A_TAR,
    NOT_UTF8,
    OUTSIDE,
    Blob,
    PathRule,
    Row,
    RowProblem,
)

Touch = Callable[..., Path]


@pytest.fixture
def touch(tmp_path: Path) -> Touch:
    """`touch("a/b.mp4", data)`: a file, or with a trailing slash a folder, in the folder of the test."""

    def make(name: str, data: bytes = b"video") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(data)
        return path

    return make


def rows_of(path: Path, **settings: Any) -> list[Row]:
    source = settings.pop("source", "videos")
    return list(open_reader(DataConfig(source=source, path=path, **settings)).rows())


def reader_name(path: Path) -> str:
    return open_reader(DataConfig(source="videos", path=path)).name


def test_folders_that_cannot_be_read_are_counted(
    touch: Touch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "films/a.mp4",
        "films/closed/b.mp4",
        "films/open/c.mp4",
        "films/open/d.masks/1.png",
    ):
        touch(name)
    reader = open_reader(DataConfig(source="videos", path=tmp_path / "films"))
    readable, names = list(reader.state()), [row.id for row in reader.rows()]
    assert names == ["a", "closed/b", "open/c"]
    scandir = os.scandir

    def refuse_one(path: Any) -> Any:  # chmod would not stop root
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse_one)
    assert {row.id: row.reason for row in reader.rows()} == {
        "a": "",
        "open/c": "",
        "closed": FOLDER_UNREADABLE,
    }
    state = list(reader.state())
    assert state != readable and state[-1].endswith("closed unreadable")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


# ------------------------------------------------------------------------------------ tables
def test_webvid_by_header_name(touch: Touch, tmp_path: Path) -> None:
    touch("v/000051_000100/1066674784.mp4")
    touch("v/77.mp4")
    new = write_csv(
        tmp_path / "results_2M_val.csv",
        ["videoid", "contentUrl", "duration", "page_dir", "name"],
        [
            [
                1066674784,
                "https://x/1.mp4",
                "PT00H00M10S",
                "000051_000100",
                "Aerial, winter  forest",
            ],
            [77, "https://x/2.mp4", "PT01H00M15S", "000001_000050", 'A "quoted" name'],
            [404, "https://x/3.mp4", "PT00H00M10S", "000001_000050", ""],
        ],
    )
    rows = rows_of(new, root=tmp_path / "v")
    assert reader_name(new) == "WebVid"
    assert [row.media.path.relative_to(tmp_path).as_posix() for row in rows] == [
        "v/000051_000100/1066674784.mp4",
        "v/77.mp4",
        "v/000001_000050/404.mp4",
    ]
    assert [row.caption for row in rows] == ["Aerial, winter forest", 'A "quoted" name', ""]
    old = write_csv(
        tmp_path / "old.csv",
        ["videoid", "name", "page_idx", "page_dir", "duration", "contentUrl"],
        [["1066674784", "Aerial", "3", "000051_000100", "PT00H00M10S", "https://x/1.mp4"]],
    )
    (row,) = rows_of(old, root=tmp_path / "v")
    assert row.media == rows[0].media and row.caption == "Aerial"


def test_a_panda_row_holds_several_clips(touch: Touch, tmp_path: Path) -> None:
    touch("panda/--007DTEIpE.mp4")
    spans = [["0:00:16.300", "0:00:32.566"], ["0:01:00.000", "0:01:03.500"], ["oops", "0:02:00"]]
    header = [
        "videoID",
        "url",
        "timestamp",
        "caption",
        "matching_score",
        "desirable_filtering",
        "shot_boundary_detection",
    ]
    scores, more = [0.4, 0.5, 0.6], ["desirable"] * 3
    table = write_csv(
        tmp_path / "panda/panda70m_testing.csv",
        header,
        [
            [
                "--007DTEIpE",
                "https://x",
                spans,
                ['It\'s a "dog".', "A cat.", "?"],
                scores,
                more,
                spans,
            ],
            ["gone", "https://x", spans[:1], ["one", "two"], scores, more, spans],
            ["evil", "https://x", "__import__('os').system('true')", ["one"], scores, more, spans],
        ],
    )
    rows = rows_of(table)
    assert reader_name(table) == "Panda-70M"
    assert [(r.id, r.start_s, r.end_s, r.caption) for r in rows[:2]] == [
        ("--007DTEIpE_0", 16.3, 32.566, 'It\'s a "dog".'),
        ("--007DTEIpE_1", 60.0, 63.5, "A cat."),
    ]
    assert [r.reason for r in rows] == ["", "", BAD_ROW, BAD_ROW, BAD_ROW]
    assert rows[0].media == Blob(tmp_path / "panda/--007DTEIpE.mp4")


def test_openvid_columns_with_spaces(touch: Touch, tmp_path: Path) -> None:
    touch("video/celebv_1.mp4")
    touch("b.mp4")
    header = [
        "video",
        "caption",
        "aesthetic score",
        "motion score",
        "temporal consistency score",
        "camera motion",
        "frame",
        "fps",
        "seconds",
    ]
    rest = [5.1, 2.0, 0.99, "static", 210, 30.0, 7.0]
    table = write_csv(
        tmp_path / "OpenVid-1M.csv",
        header,
        [["celebv_1.mp4", "In the video, a man", *rest], ["b.mp4", "B", *rest]],
    )
    rows = rows_of(table)
    assert reader_name(table) == "OpenVid-1M"
    assert [r.media.path for r in rows] == [tmp_path / "video/celebv_1.mp4", tmp_path / "b.mp4"]


def test_custom_tables(touch: Touch, tmp_path: Path) -> None:
    table = touch(
        "own.jsonl",
        b'{"video_path": "a.mp4", "text": "A", "mask_path": "m/a", "start": 1, "end": "0:03"}\n'
        b"\n"
        b"{not json}\n"
        b'["a", "list"]\n'
        b'{"video_path": "a.mp4", "text": "again"}\n'
        b'{"video_path": 7, "text": "a number"}\n'
        b'{"text": "no path"}\n'
        b'{"video_path": "b.mp4", "text": {"x": 1}}\n',
    )
    rows = rows_of(table)
    first = rows[0]
    assert (first.id, first.caption, first.start_s, first.end_s) == ("a", "A", 1.0, 3.0)
    assert first.masks == Blob(tmp_path / "m/a")
    assert [r.reason for r in rows] == ["", BAD_ROW, BAD_ROW, "", "", BAD_ROW, BAD_ROW]
    other = touch("other.tsv", b"clip\tsays\nx.mp4\thello\tworld\ny.mp4\thi\n")
    rows = rows_of(other, columns={"path": "clip", "caption": "says"})
    assert [(r.reason, r.caption) for r in rows] == [(BAD_ROW, ""), ("", "hi")]


@pytest.mark.parametrize(
    ("name", "text", "settings", "message"),
    [
        ("a.csv", "clip,says\n1,2\n", {}, "no column for the path among clip, says"),
        ("a.csv", "path,says\n1,2\n", {}, r"caption among .* data\.columns\.caption"),
        ("a.csv", "path,says\n1,2\n", {"columns": {"caption": "said"}}, "no column 'said'"),
        (
            "a.csv",
            "path,says\n1,2\n",
            {"columns": {"words": "says"}},
            "data.columns has the key 'words'",
        ),
        ("a.csv", "path,caption\n", {}, "has no rows"),
        ("a.txt", "hello", {}, "must end in .csv"),
        ("a.tar.gz", "hello", {}, "compressed"),
        ("a.parquet", "hello", {}, "cannot read the table|needs pyarrow"),
    ],
)
def test_unusable_tables_are_refused_with_one_sentence(
    touch: Touch, name: str, text: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(LoopAnimateError, match=message):
        rows_of(touch(name, text.encode()), **settings)


def test_captions_that_are_not_utf8_are_reported(touch: Touch, tmp_path: Path) -> None:
    table = touch("t.csv", b"\xef\xbb\xbfpath,caption\na.mp4,caf\xc3\xa9\nb.mp4,caf\xe9\n")
    assert [(r.reason, r.caption) for r in rows_of(table)] == [("", "café"), (NOT_UTF8, "")]
    for name, caption in (("c", b"caf\xe9"), ("d", b"\xef\xbb\xbf two\n lines ")):
        touch(f"f/{name}.mp4")
        touch(f"f/{name}.txt", caption)
    rows = rows_of(tmp_path / "f")
    assert [(r.reason, r.caption) for r in rows] == [(NOT_UTF8, ""), ("", "two lines")]


def test_paths_outside_the_folder_must_be_allowed(touch: Touch, tmp_path: Path) -> None:
    table = write_csv(
        tmp_path / "t.csv",
        ["path", "caption"],
        [
            ["/etc/passwd", "a"],
            ["../up.mp4", "b"],
            ["x/../in.mp4", "c"],
            ["", "d"],
            ["n\0.mp4", "e"],
        ],
    )
    assert [r.reason for r in rows_of(table)] == [OUTSIDE, OUTSIDE, "", BAD_ROW, BAD_ROW]
    allowed = rows_of(table, outside="allow")
    assert [r.media.path for r in allowed[:3]] == [
        Path("/etc/passwd"),
        tmp_path.parent / "up.mp4",
        tmp_path / "in.mp4",
    ]


@given(st.text(st.sampled_from("./a\0\\ é"), max_size=12))
def test_no_path_leaves_the_root(text: str) -> None:
    try:
        path = PathRule(Path("/data/clips")).resolve(text)
    except RowProblem:
        return
    assert path.is_relative_to("/data/clips") and ".." not in path.parts


def test_parquet_in_batches(touch: Touch, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow (extra `parquet`) is not installed")
    import pyarrow.parquet as parquet

    for part, numbers in enumerate((range(3000), range(3000, 3002))):
        columns = {
            "video": [f"{n}.mp4" for n in numbers],
            "caption": [f"clip {n}" if n % 1000 else None for n in numbers],
        }
        parquet.write_table(pyarrow.table(columns), touch(f"p/part-{part}.parquet"))
    rows = rows_of(tmp_path / "p")
    assert len(rows) == 3002 and rows[3001].caption == "clip 3001" and rows[1000].caption == ""
    panda = {"videoID": ["a"], "timestamp": [[["0:00:01", "0:00:03"]]], "caption": [["A"]]}
    parquet.write_table(pyarrow.table(panda), touch("panda.parquet"))
    (row,) = rows_of(tmp_path / "panda.parquet")
    assert (row.id, row.start_s, row.end_s, row.caption) == ("a_0", 1.0, 3.0, "A")


def test_parquet_without_pyarrow(touch: Touch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(LoopAnimateError, match=r"needs pyarrow: pip install 'loopanimate\[parquet"):
        rows_of(touch("a.parquet"))


# ----------------------------------------------------------------------------------- folders
def test_folder_of_videos_captions_and_masks(touch: Touch, tmp_path: Path) -> None:
    for name in ("b/2.mp4", "a.mp4", "a.txt", "3.webm", "3.mask.mp4", "notes.md", ".hidden/x.txt"):
        touch(f"f/{name}", b"text")
    touch("f/b/2.json", b'{"caption": "from json", "duration": 3}')
    touch("f/a.masks/000.png")
    rows = rows_of(tmp_path / "f")
    assert [(r.id, r.caption) for r in rows] == [("3", ""), ("a", "text"), ("b/2", "from json")]
    assert rows[0].masks == Blob(tmp_path / "f/3.mask.mp4")
    assert rows[1].masks == Blob(tmp_path / "f/a.masks") and rows[2].masks is None
    touch("m/b/2/000.png")
    elsewhere = rows_of(tmp_path / "f", masks=tmp_path / "m")
    assert elsewhere[2].masks == Blob(tmp_path / "m/b/2") and elsewhere[0] == rows[0]
    with pytest.raises(LoopAnimateError, match="must be a folder"):
        rows_of(tmp_path / "f", masks=tmp_path / "none")


def test_a_folder_with_metadata_is_read_as_a_table(touch: Touch, tmp_path: Path) -> None:
    touch("f/x.mp4")
    touch("f/metadata.csv", b"file_name,prompt\nx.mp4,hello\n")
    (row,) = rows_of(tmp_path / "f")
    assert row.media.path == tmp_path / "f/x.mp4" and row.caption == "hello"


def test_webvids_own_table_inside_the_folder_is_found(touch: Touch, tmp_path: Path) -> None:
    touch("w/videos/000001_000050/7.mp4")
    head = ["videoid", "contentUrl", "duration", "page_dir", "name"]
    row = [7, "https://x/7.mp4", "PT00H00M10S", "000001_000050", "Aerial"]
    write_csv(tmp_path / "w/results_2M_train.csv", head, [row])
    write_csv(tmp_path / "w/notes.csv", ["a", "b"], [[1, 2]])
    (found,) = rows_of(tmp_path / "w")
    assert found.caption == "Aerial" and found.media.path.name == "7.mp4" and found.id == "7"
    write_csv(tmp_path / "w/results_2M_val.csv", head, [row])
    with pytest.raises(LoopAnimateError, match=r"results_2M_train\.csv, results_2M_val\.csv"):
        rows_of(tmp_path / "w")
    touch("w/videos/000001_000050/7.txt", b"a caption beside the video")  # goes first
    (found,) = rows_of(tmp_path / "w")
    assert found.caption == "a caption beside the video"


def test_state_changes_with_the_listing(touch: Touch, tmp_path: Path) -> None:
    def state() -> list[str]:
        reader = open_reader(DataConfig(source="videos", path=tmp_path / "f"))
        return list(reader.state())

    touch("f/a.mp4")
    states = [state()]
    for name in ("f/a.txt", "f/b.mp4", "f/a.masks/0.png"):
        touch(name)
        states.append(state())
    touch("f/a.txt", b"another caption")
    states.append(state())
    assert all(a != b for a, b in itertools.pairwise(states))
    assert state() == states[-1]


# -------------------------------------------------------------------------------------- tars
def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


MEMBERS = {
    "00000/0.mp4": b"v" * 700,
    "00000/0.txt": b"zero",
    "00000/1.webm": b"w" * 100,
    "00000/1.json": json.dumps({"caption": "one", "key": "1"}).encode(),
    "00000/1.mask.mp4": b"m" * 10,
    "00000/2.mp4": b"x" * 900,
    "00000/2.txt": b"caf\xe9",
    "00000/3.txt": b"a caption without a clip",
    "00000/4.mp4": b"y" * 2000,
}


def test_tars_are_read_in_place(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t/00000.tar", MEMBERS)
    write_tar(tmp_path / "t/00001.tar", {"a/9.mp4": b"last", "a/9.txt": b"nine"})
    rows = rows_of(tmp_path / "t")
    assert [(r.id, r.caption, r.reason) for r in rows] == [
        ("00000/00000/0", "zero", ""),
        ("00000/00000/1", "one", ""),
        ("00000/00000/2", "", NOT_UTF8),
        ("00000/00000/4", "", ""),
        ("00001/a/9", "nine", ""),
    ]
    data = path.read_bytes()
    for row, name in zip(rows, ("0.mp4", "1.webm", "2.mp4", "4.mp4"), strict=False):
        blob = row.media
        assert data[blob.offset : blob.offset + blob.size] == MEMBERS[f"00000/{name}"]
    masks = rows[1].masks
    assert masks and data[masks.offset : masks.offset + masks.size] == b"m" * 10


def test_a_curated_table_keeps_what_it_refuses_and_finds_members_of_tars(
    touch: Touch, tmp_path: Path
) -> None:
    touch("t/a.mp4")
    row = dict.fromkeys(CURATED_COLUMNS, "")
    whole = {"offset_bytes": 0, "size_bytes": -1}
    rows = [
        {**row, **whole, "id": "a", "path": "a.mp4", "caption": "a cat", "status": "kept"},
        {**row, **whole, "id": "b", "path": "b.mp4", "status": "rejected", "reason": "cuts"},
        {**row, "id": "c", "path": "c.tar", "caption": "c", "status": "kept", "start_s": 1.5}
        | {"offset_bytes": 512, "size_bytes": 700, "mask_path": "c.tar"}
        | {"mask_offset_bytes": 2048, "mask_size_bytes": 10},
        {**row, "id": "d", "path": "d.mp4", "caption": "d", "status": "kept"},
        {**row, **whole, "id": "e", "path": "../e.mp4", "caption": "e", "status": "kept"},
    ]
    path = write_csv(tmp_path / "t/s.csv", CURATED_COLUMNS, [list(r.values()) for r in rows])
    assert reader_name(path) == "curated table"
    first, second, third, *others = rows_of(path)
    assert first.media == Blob(tmp_path / "t/a.mp4") and first.caption == "a cat"
    assert (second.id, second.reason) == ("b", "not kept by curate: cuts")
    assert third.media == Blob(tmp_path / "t/c.tar", 512, 700) and third.start_s == 1.5
    assert third.masks == Blob(tmp_path / "t/c.tar", 2048, 10)
    assert [one.reason for one in others] == [BAD_ROW, OUTSIDE]


@pytest.mark.parametrize("damage", ["header", "cut in a member", "cut in a header"])
def test_a_damaged_tar_keeps_its_good_members(tmp_path: Path, damage: str) -> None:
    path = write_tar(tmp_path / "00000.tar", MEMBERS)
    data = bytearray(path.read_bytes())
    header = data.index(b"00000/4.mp4")
    if damage == "header":
        data[header] ^= 0xFF
    else:
        del data[header + (200 if "header" in damage else 1500) :]
    path.write_bytes(data)
    rows = rows_of(path)
    assert [r.reason for r in rows] == ["", "", NOT_UTF8, BAD_TAR]


def test_a_file_that_is_not_a_tar_gives_one_row(touch: Touch) -> None:
    rows = rows_of(touch("t/x.tar", b"this is not a tar" * 100).parent)
    assert [(r.id, r.reason) for r in rows] == [("x.tar", NOT_A_TAR)]
