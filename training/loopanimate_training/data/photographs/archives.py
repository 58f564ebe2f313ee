"""Read files out of .deb, .whl, .zip and .tgz archives, and out of Qt resource files inside them."""

from __future__ import annotations

import io
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from loopanimate_core.errors import LoopAnimateError

_RCC_COMPRESSED, _RCC_FOLDER, _RCC_ZSTD = 1, 2, 4  # flags of an entry


def members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of the wanted files of an archive, in the archive's order.

    The files of a Qt resource file (`x.rcc`) appear as `x.rcc/inner/path`; to read them, `wanted`
    must accept both the `.rcc` file and the inner path.

    Raises:
        LoopAnimateError: the archive cannot be read, or dpkg-deb is not installed.
    """
    for path, data in _plain_members(archive, wanted):
        if path.endswith(".rcc"):
            for inner, inner_data in _resource_members(data):
                full = f"{path}{inner}"
                if wanted(full):
                    yield full, inner_data
        else:
            yield path, data


def _plain_members(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    try:
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as pack:
                for name in filter(wanted, pack.namelist()):
                    yield name, pack.read(name)
            return
        content = _debian_tar(archive) if archive.suffix == ".deb" else archive.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(content)) as pack:
            for member in pack:
                name = member.name.removeprefix("./")
                stream = pack.extractfile(member) if member.isfile() and wanted(name) else None
                if stream is not None:
                    yield name, stream.read()
    except (OSError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise LoopAnimateError(f"cannot read {archive}: {error}") from error


def _debian_tar(archive: Path) -> bytes:
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    try:
        return subprocess.run(command, check=True, capture_output=True).stdout
    except FileNotFoundError as error:
        raise LoopAnimateError(
            f"unpacking {archive.name} needs dpkg-deb; install the package dpkg"
        ) from error
    except subprocess.CalledProcessError as error:
        raise LoopAnimateError(f"cannot read {archive}: {error.stderr.decode().strip()}") from error


def _resource_members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The files of a binary Qt resource file: a tree of entries, their names, and their data.

    The layout is that of Qt's `rcc` tool: 14 bytes per entry in version 1, 22 since version 2. Files
    compressed with zstd are skipped; pictures are stored as they are.
    """
    if data[:4] != b"qres":
        raise LoopAnimateError("a .rcc file does not start with 'qres'")
    version, tree, blobs, names = struct.unpack_from(">4I", data, 4)
    entry_bytes = 14 if version == 1 else 22

    def walk(index: int, parent: str) -> Iterator[tuple[str, bytes]]:
        entry = tree + index * entry_bytes
        name_at, flags = struct.unpack_from(">IH", data, entry)
        length = struct.unpack_from(">H", data, names + name_at)[0]
        text = data[names + name_at + 6 :][: 2 * length].decode("utf-16-be")
        path = f"{parent}/{text}" if text else parent
        if flags & _RCC_FOLDER:
            count, first = struct.unpack_from(">II", data, entry + 6)
            for child in range(first, first + count):
                yield from walk(child, path)
        elif not flags & _RCC_ZSTD:
            start = blobs + struct.unpack_from(">I", data, entry + 10)[0]
            size = struct.unpack_from(">I", data, start)[0]
            content = data[start + 4 : start + 4 + size]
            yield path, zlib.decompress(content[4:]) if flags & _RCC_COMPRESSED else content

    yield from walk(0, "")
