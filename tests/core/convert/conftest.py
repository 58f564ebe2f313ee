"""One set of toy networks, in every layout, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks import Parts

from loopanimate_core.bundle import Bundle
from loopanimate_core.convert.assemble import PartFiles, assemble
from loopanimate_core.convert.extract import extract


@pytest.fixture(scope="session")
def parts() -> Parts:
    return Parts()


@pytest.fixture(scope="session")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return parts.save_folders(tmp_path_factory.mktemp("sd-image-variations"))


@pytest.fixture(scope="session")
def text_folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd15") / "text_encoder"
    parts.text_encoder.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def adapter(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapter")
    parts.adapter.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def bundle(folder: Path, text_folder: Path, adapter: Path) -> Bundle:
    return assemble(PartFiles(folder, adapter, text_encoder=text_folder), conv_in_init="random")


@pytest.fixture(scope="session")
def extracted(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("extracted")
    for layout in ("diffusers", "checkpoint", "animatediff", "pia", "motion_adapter"):
        for path in extract(bundle, root / layout, layout):
            assert path.is_file()
    return {path.name: path for path in root.iterdir()}
