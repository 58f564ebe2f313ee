"""Downloads from a local hub: resumed, cached, checked, and every failure a plain sentence."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from local_hub import Hub, served

from loopanimate_core import LoopAnimateError
from loopanimate_core.fetch import RecipeFile, find_recipe
from loopanimate_core.fetch.download import download, is_cached, require_space


@pytest.fixture
def lora(small_hub: Hub) -> RecipeFile:
    return served(find_recipe("lcm-lora"), small_hub).files["lora"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client does not wait between its attempts."""
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)


def failure(file: RecipeFile, hub: Hub, *, offline: bool = False) -> str:
    """The sentence with which a download fails."""
    with pytest.raises(LoopAnimateError) as raised:
        download(file, endpoint=hub.url, offline=offline, quiet=True)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_file_is_downloaded_once(lora: RecipeFile, small_hub: Hub, cache: Path) -> None:
    assert not is_cached(lora)
    path = download(lora, endpoint=small_hub.url, quiet=True)
    assert path.read_bytes() == small_hub.files[lora.repository][lora.file]
    assert path.is_relative_to(cache)
    again = download(lora, endpoint=small_hub.url, quiet=True)
    assert again == path and len(small_hub.gets()) == 1
    assert download(lora, endpoint=small_hub.url, offline=True, quiet=True) == path


def test_a_broken_download_goes_on_where_it_stopped(
    lora: RecipeFile, small_hub: Hub, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client itself tries again; what it has is not asked for twice."""
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    small_hub.break_after = 100_000
    path = download(lora, endpoint=small_hub.url, quiet=True)
    assert path.read_bytes() == small_hub.files[lora.repository][lora.file]
    ranges = [wanted for _, wanted in small_hub.gets()]
    assert ranges[0] is None and all(wanted for wanted in ranges[1:]) and len(ranges) >= 3


def test_a_download_that_never_ends_well(lora: RecipeFile, small_hub: Hub, impatient: None) -> None:
    small_hub.break_after = 0
    said = failure(lora, small_hub)
    assert "broke off" in said and "fetch again: complete files are kept" in said


def test_a_wrong_hash_is_deleted(lora: RecipeFile, small_hub: Hub, cache: Path) -> None:
    other = dataclasses.replace(lora, sha256="ab" * 32)
    said = failure(other, small_hub)
    assert "expected abababababab…" in said and "was deleted" in said
    assert not [p for p in cache.rglob("*") if p.is_file() and p.stat().st_size > 100_000]
    assert download(lora, endpoint=small_hub.url, quiet=True).is_file()
    unknown = dataclasses.replace(lora, sha256=None)  # nothing to compare with
    assert download(unknown, endpoint=small_hub.url, quiet=True).is_file()


def test_no_network_and_offline(lora: RecipeFile, small_hub: Hub, impatient: None) -> None:
    with pytest.raises(LoopAnimateError, match="cannot be reached; check the network") as raised:
        download(lora, endpoint="http://127.0.0.1:9", quiet=True)
    assert "--endpoint" in str(raised.value)
    said = failure(lora, small_hub, offline=True)
    assert "not in the cache" in said and "HF_HUB_OFFLINE" in said
    assert not small_hub.requests


def test_offline_by_the_environment(
    lora: RecipeFile, small_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "network is not used offline" in failure(lora, small_hub)


def test_a_gated_repository(lora: RecipeFile, small_hub: Hub) -> None:
    small_hub.gated.add(lora.repository)
    said = failure(lora, small_hub)
    assert "accept its terms" in said and "hf auth login" in said and lora.repository in said


def test_what_is_not_there_any_more(lora: RecipeFile, small_hub: Hub) -> None:
    moved = dataclasses.replace(lora, file="moved.safetensors")
    assert "has no file moved.safetensors" in failure(moved, small_hub)
    gone = dataclasses.replace(lora, repository="nobody/nothing")
    assert "there is no repository nobody/nothing" in failure(gone, small_hub)


def test_a_disk_that_fills_up(lora: RecipeFile, small_hub: Hub) -> None:
    """No file of this process may grow over 100 kB."""
    resource = pytest.importorskip("resource", reason="limits of a process are POSIX")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        said = failure(lora, small_hub)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "is full; make room" in said and "complete files are kept" in said
    assert download(lora, endpoint=small_hub.url, quiet=True).is_file()


def test_a_disk_that_is_too_small(tmp_path: Path, lora: RecipeFile) -> None:
    huge = dataclasses.replace(lora, size_mb=10**12)
    with pytest.raises(LoopAnimateError, match=r"are needed, .* MB are free"):
        require_space([huge], tmp_path / "not" / "there")
    require_space([dataclasses.replace(lora, size_mb=None)], tmp_path)
