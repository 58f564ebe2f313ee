"""Data sets behind a URL: fsspec's `memory://`, and for child processes a protocol that reads a folder."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from curated_scenes import scene
from film_data import CLIP, data_of
from h264 import write_video

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.cli import main
from loopanimate_training.config import DataConfig
from loopanimate_training.config.same_run import require_same_run
from loopanimate_training.config.stored import relocated, stored_settings
from loopanimate_training.data.readers.detect import open_reader
from loopanimate_training.data.readers.rows import OUTSIDE, PathRule, RowProblem
from loopanimate_training.data.source import FileSource
from loopanimate_training.remote import RemotePath, data_path, file_system, walk
from loopanimate_training.testing import toy_run

STORE = '''
import os
from fsspec.implementations.dirfs import DirFileSystem

class Store(DirFileSystem):
    """fsspec's file system of a folder, under a protocol of its own: what a package such as s3fs brings."""

    protocol, cachable = "teststore", False

    def __init__(self, **options):
        super().__init__(path=os.environ["TESTSTORE"], target_protocol="file", **options)

    @classmethod
    def _strip_protocol(cls, path):
        return path.removeprefix("teststore://").rstrip("/")
'''


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's files in memory, empty."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is read as `teststore://`, also by child processes: an entry point of a package announces it."""
    package, folder = tmp_path / "package", tmp_path / "store"
    info = package / "teststore-1.dist-info"
    info.mkdir(parents=True)
    (folder / "clips").mkdir(parents=True)
    (package / "teststore.py").write_text(STORE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: teststore\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fsspec.specs]\nteststore=teststore:Store\n")
    monkeypatch.setenv("TESTSTORE", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PYTHONPATH", str(package), prepend=":")
    fsspec.register_implementation("teststore", "teststore.Store", clobber=True)
    yield folder
    file_system.cache_clear()


@pytest.mark.parametrize(
    "text", ["s3://bucket/clips/a.mp4", "s3:/bucket/clips/a.mp4", "S3://bucket/x/../clips/a.mp4"]
)
def test_urls_survive_every_way_of_writing_them(text: str) -> None:
    path = data_path(text)
    assert isinstance(path, RemotePath) and str(path) == "s3://bucket/clips/a.mp4"
    for again in (data_path(path.__fspath__()), pickle.loads(pickle.dumps(path)), path.resolve()):
        assert again == path and hash(again) == hash(path) and str(again) == str(path)
    assert str(path.parent / "b.txt") == "s3://bucket/clips/b.txt" and path.stem == "a"
    assert str(path.relative_to(path.parent)) == "a.mp4"


@pytest.mark.parametrize(
    "text", ["clips", "/clips", "file:///clips", r"C:\clips", "C:/clips", "a:b"]
)
def test_other_paths_stay_ordinary(text: str) -> None:
    assert type(data_path(text)) is type(Path()) and str(data_path("file:///a/b")) == "/a/b"


def test_files_and_folders(memory: Any) -> None:
    memory.pipe(
        {"/set/a.mp4": b"12345", "/set/deep/b.txt": "ä".encode(), "/set/deep/x.masks/0": b""}
    )
    folder = data_path("memory://set")
    assert folder.is_dir() and not folder.is_file() and not (folder / "none").exists()
    assert (folder / "a.mp4").stat().st_size == 5
    assert (folder / "deep/b.txt").open(encoding="utf-8").read() == "ä"
    listed = [(str(place), sorted(names)) for place, _, names in walk(folder)]
    assert listed[0] == ("memory://set", ["a.mp4"]) and len(listed) == 3
    assert len(list(walk(folder, at_most=1))) == 1
    before = (folder / "a.mp4").stat()
    memory.pipe("/set/a.mp4", b"54321")
    assert (folder / "a.mp4").stat() != before
    with pytest.raises(OSError, match="Read-only"):
        (folder / "a.mp4").open("w")
    with pytest.raises(FileNotFoundError):
        (folder / "none").open("rb")


@pytest.mark.parametrize(
    ("url", "sentence"),
    [("nothing://b", "Protocol not known"), ("abfs://b/x", "adlfs|Azure|azure")],
)
def test_a_protocol_that_cannot_be_read_is_one_sentence(url: str, sentence: str) -> None:
    if url.startswith("abfs"):
        try:
            import adlfs  # type: ignore[import-not-found]  # noqa: F401

            pytest.skip("adlfs is installed")
        except ImportError:
            pass
    with pytest.raises(LoopAnimateError, match=sentence) as raised:
        open_reader(DataConfig(source="videos", path=Path(url)))
    assert url.partition("//")[0] in str(raised.value) and "\n" not in str(raised.value)


def test_readers_list_what_is_behind_a_url(memory: Any) -> None:
    memory.pipe(
        {"/set/a.mp4": b"", "/set/a.txt": b"a cat", "/set/in/b.mp4": b"", "/set/a.mask.mp4": b""}
    )
    rows = list(open_reader(DataConfig(source="videos", path=Path("memory://set"))).rows())
    assert [row.id for row in rows] == ["a", "in/b"] and rows[0].caption == "a cat"
    assert rows[0].masks is not None and str(rows[0].masks.path) == "memory://set/a.mask.mp4"
    memory.pipe(
        "/set/metadata.csv",
        b"path,caption\na.mp4,cat\ns3://other/b.mp4,dog\n../out.mp4,x\n/set/c.mp4,y\n",
    )
    rows = list(open_reader(DataConfig(source="videos", path=Path("memory://set"))).rows())
    assert [row.reason for row in rows] == ["", OUTSIDE, OUTSIDE, ""]
    assert str(rows[0].media.path) == "memory://set/a.mp4"


def test_a_table_reaches_urls_only_where_that_is_allowed() -> None:
    for root in (Path("/data"), data_path("s3://mine")):
        with pytest.raises(RowProblem, match="outside"):
            PathRule(root).resolve("s3://theirs/a.mp4")
        assert str(PathRule(root, True).resolve("s3://theirs/a.mp4")) == "s3://theirs/a.mp4"
    assert str(PathRule(data_path("s3://mine")).resolve("s3://mine/b/a.mp4")) == "s3://mine/b/a.mp4"
    assert str(PathRule(data_path("s3://mine")).resolve("/etc/passwd")) == "s3://mine/etc/passwd"


def test_a_run_reads_the_same_frames_from_a_store(store: Path, tmp_path: Path, films: Any) -> None:
    films.write(store / "clips/a.mp4", 24, first=0)
    films.write(store / "clips/a.mask.mp4", 24, first=0)
    (store / "clips/a.txt").write_text("a square")
    with tarfile.open(store / "clips.tar", "w") as tar:
        for file in sorted((store / "clips").iterdir()):
            tar.add(file, file.name)
    clip = CLIP.model_copy(update={"mask": "object"})
    places = [store / "clips", "teststore://clips", "teststore://clips.tar"]
    sources = [FileSource(data_of(data_path(place), index=tmp_path), clip) for place in places]
    found = [source.read(0, [2, 3, 9]) for source in sources]
    assert films.numbers(found[1][0]) == [2, 3, 9]
    for frames, masks in found[1:]:
        assert (frames == found[0][0]).all() and (masks == found[0][1]).all()
    assert len({source.fingerprint() for source in sources}) == 1
    assert (
        sources[1].caption(0) == "a square" and sources[1].name(0) == "a (teststore://clips/a.mp4)"
    )
    films.write(store / "clips/b.mp4", 24, first=3)
    (store / "clips/b.txt").write_text("another")
    assert (
        len(FileSource(data_of(data_path(places[1]), index=tmp_path), clip)) == 2
    )  # a change of the store is noticed


def test_curation_of_a_store_can_be_trained_on(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra parquet)")
    write_video(store / "clips/a.mp4", scene(24, speed_px=2.0))
    (store / "clips/a.txt").write_text("a ball swinging")
    (store / "clips/broken.mp4").write_text("<html>404</html>")
    (store / "clips/broken.txt").write_text("a ball")
    table = tmp_path / "salient.parquet"
    settings = ["measure.f=4", "measure.windows=1", "limits.shortest_side_px=32"]
    options = [part for one in settings for part in ("--set", one)]
    command = ["curate", "teststore://clips", "-o", str(table), "--workers", "1", *options]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 0
    data = data_of(table, outside="allow")
    assert sorted(row.reason for row in open_reader(data).rows()) == [
        "",
        "not kept by curate: cannot be decoded",
    ]
    assert FileSource(data, CLIP).read(0, [0])[0].shape[0] == 1
    with pytest.raises(SystemExit) as ended:
        main([*command[:3], "teststore://salient.parquet"])
    assert ended.value.code == 1


def test_a_checkpoint_keeps_urls(tmp_path: Path) -> None:
    run = toy_run(tmp_path, None, **{"data.path": "s3://bucket/clips", "data.root": "s3://bucket"})
    stored = stored_settings(run)["data"]
    assert stored["path"] == "s3://bucket/clips" and stored["root"] == "s3://bucket"
    require_same_run(stored_settings(run), run)
    assert (
        relocated(stored_settings(run), tmp_path / "elsewhere")["data"]["path"]
        == "s3://bucket/clips"
    )
