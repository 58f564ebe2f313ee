"""One index per data set, however its paths are written and wherever it was built."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from loopanimate_training.config import DataConfig
from loopanimate_training.data.index import build
from loopanimate_training.data.index.build import index_path, open_index
from loopanimate_training.data.index.probe_pool import ProbePool
from loopanimate_training.data.readers.detect import open_reader

Films = Any  # the fixture of conftest.py


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the clips that are decoded; the user's cache folder is `home`, and the folder to work in `tmp_path`."""
    names: list[str] = []
    probe = ProbePool.probe

    def counted(self: ProbePool, row: Any) -> Any:
        names.append(row.id)
        return probe(self, row)

    monkeypatch.setattr(ProbePool, "probe", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return names


def data_at(path: Path | str, **settings: Any) -> DataConfig:
    return DataConfig(**{"source": "videos", "path": path, **settings})


def test_the_same_folder_written_in_four_ways(
    folder: Path, tmp_path: Path, probed: list[str]
) -> None:
    (tmp_path / "link").symlink_to(folder)
    ways = [folder, folder.name, f"x/../{folder.name}", tmp_path / "link"]
    (tmp_path / "x").mkdir()
    tables = [open_index(data_at(way)) for way in ways]
    assert len(probed) == 5 and len({table.path for table in tables}) == 1
    assert {table.text(0)[1] for table in tables} == {str(folder / "0.mp4")}


def test_masks_and_roots_may_be_relative_too(
    films: Films, folder: Path, tmp_path: Path, probed: list[str]
) -> None:
    films.write(tmp_path / "masks/0.mp4", 24)
    (tmp_path / "t.csv").write_text("path,caption,id\n0.mp4,a,0\n1.mp4,b,1\n")
    one = open_index(data_at("t.csv", root="films", masks="masks"))
    other = data_at(tmp_path / "t.csv", root=folder, masks=tmp_path / "masks")
    assert open_index(other).path == one.path and len(probed) == 2
    assert one.row(0).masks is not None


def test_a_linked_table_keeps_its_folder(
    films: Films, folder: Path, tmp_path: Path, probed: list[str]
) -> None:
    (tmp_path / "elsewhere.csv").write_text("path,caption\n0.mp4,a\n")
    (folder / "metadata.csv").symlink_to(tmp_path / "elsewhere.csv")
    assert open_index(data_at(folder / "metadata.csv")).facts(0).frames == 24


def test_commands_with_and_without_a_cache_share_an_index(
    films: Films, folder: Path, tmp_path: Path, probed: list[str]
) -> None:
    bare, cached = data_at(folder), data_at("films", cache="cache")
    open_index(bare)
    first = open_index(cached)
    assert len(probed) == 5 and first.path.parent == Path("cache")
    shutil.rmtree(tmp_path / "home")
    films.write(folder / "5.mp4", 24, first=77)
    assert len(open_index(cached)) == 6 and probed[5:] == ["5"]
    assert len(open_index(bare)) == 6 and len(probed) == 6  # through a link
    shutil.rmtree(tmp_path / "cache")
    assert len(open_index(bare)) == 6 and len(probed) == 12  # the link leads nowhere
    explicit = data_at(folder, index=tmp_path / "own")
    assert len(open_index(explicit)) == 6 and len(probed) == 12
    assert not index_path(bare).is_symlink()


def test_an_index_of_an_earlier_version_is_not_decoded_again(
    folder: Path, tmp_path: Path, probed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lists the paths as they were written."""
    relative = data_at("films", index="index")
    with monkeypatch.context() as before:
        before.setattr(build, "open_reader", lambda _: open_reader(relative))
        old = open_index(relative)
    assert old.text(0)[1] == "films/0.mp4" and len(probed) == 5
    new = open_index(relative)
    assert new.text(0)[1] == str(folder / "0.mp4") and len(probed) == 5
    assert [new.content(i) for i in range(5)] == [old.content(i) for i in range(5)]
