"""What small files and large options ask for: bounded memory, or one sentence before any work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peak_memory import peak_growth_bytes
from PIL import Image

from loopanimate_core import memory
from loopanimate_core.check import check_file
from loopanimate_core.cli import main
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import READING_BYTES_PER_PIXEL, load_picture
from loopanimate_core.video import write_video

MB = 10**6


def test_check_takes_no_more_memory_for_a_longer_video(tmp_path: Path) -> None:
    """Finding 8. All frames of this one, as floats, are 470 MB."""
    still = torch.rand(480, 640, 3, generator=torch.Generator().manual_seed(0))
    frames = torch.stack([still.roll(4 * step, 1) for step in range(4)])
    path = write_video(frames, tmp_path / "long.mp4", fps=24, repeats=32)
    reports = []
    grown = peak_growth_bytes(lambda: reports.append(check_file(path)))
    assert reports[0].frames == 128
    assert grown < 150 * MB


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "CMYK"])
def test_reading_a_picture_takes_no_more_than_is_asked_for(tmp_path: Path, mode: str) -> None:
    """Finding 13: 42 bytes a pixel once; what is asked for decides whether a picture is refused."""
    shape = (2000, 3000)
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 250)
    else:
        image = Image.fromarray(noise).convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    image.save(path, exif=exif)
    small = path.with_stem("small")
    image.crop((0, 0, 32, 32)).save(small, exif=exif)
    load_picture(small)  # what the libraries allocate at their first use is no part of a picture
    grown = peak_growth_bytes(lambda: load_picture(path))
    assert grown < READING_BYTES_PER_PIXEL * shape[0] * shape[1] + 30 * MB


def test_a_picture_that_does_not_fit_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding 13: 174 megapixels in a small file."""
    path = tmp_path / "large.png"
    Image.new("1", (14_500, 12_000)).save(path)
    monkeypatch.setattr(memory, "available_bytes", lambda: 3 * 10**9)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(
        LoopAnimateError, match=r"needs about 4\.9 GB of memory and 3\.0 GB are free"
    ):
        load_picture(path)


def test_a_chain_that_does_not_fit_is_refused_before_a_picture_is_drawn(
    tmp_path: Path,
    toy_bundle_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Finding 17: the longest chain that is legal."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "red").save("pic.png")
    monkeypatch.setattr(memory, "available_bytes", lambda: 500 * MB)
    monkeypatch.setattr(
        "loopanimate_core.pipeline.sample_loop", lambda *_, **__: pytest.fail("sampled")
    )
    options = ["--bundle", str(toy_bundle_path), "--frames", "15", "--chain", "1000"]
    assert main(["animate", "pic.png", *options]) == 2
    error = capsys.readouterr().err
    assert "a chain of 1000 loops of 15 frames" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pic.png"]
