"""Detail Transfer: settings, what it delivers, and streaming into Save Loop."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from loopanimate_core.detail import DetailSettings, settings
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video import read_video

DEFAULTS: dict[str, Any] = {
    "mode": "rigid",
    "size": "original",
    "width": 1920,
    "height": 1080,
    "fps": 0.0,
    "frames_fps": 8.0,
    "residual": 0.0,
    "band": 0.12,
    "transparent": False,
    "deliver": "images",
}
SAVE: dict[str, Any] = {
    "filename_prefix": "loop",
    "format": "ffv1",
    "fps": 8.0,
    "quality": -1,
    "preset": "as it is",
    "repeats": 1,
}
SCALE = 3


def disc(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A shaded disc in the middle of a grey field: colours and mask at these positions in -1..1."""
    cover = ((0.4 - x.hypot(y)) * 30).clamp(0, 1)[..., None]
    paint = torch.stack([0.6 + 0.5 * x, 0.3 + 0.5 * y, 0.1 + 0 * x], -1)
    return 0.5 + cover * (paint - 0.5), cover[..., 0]


def positions(height_px: int, width_px: int) -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(height_px), torch.arange(width_px), indexing="ij")
    half = width_px / 2
    return (x + 0.5) / half - 1, (y + 0.5) / half - height_px / width_px


@pytest.fixture(scope="module")
def frames() -> torch.Tensor:
    """The disc goes round once: `[8, 48, 64, 3]`; frame 0 has it in the middle."""
    x, y = positions(48, 64)
    angles = torch.arange(8) * (2 * torch.pi / 8)
    return torch.stack([disc(x - 0.1 * (a.cos() - 1), y - 0.1 * a.sin())[0] for a in angles])


@pytest.fixture(scope="module")
def still() -> torch.Tensor:
    return disc(*positions(48 * SCALE, 64 * SCALE))[0][None]


@pytest.fixture(scope="module")
def mask() -> torch.Tensor:
    return disc(*positions(48 * SCALE, 64 * SCALE))[1][None].round()


def run(nodes: Any, frames: torch.Tensor, still: torch.Tensor, **changes: Any) -> Any:
    return nodes["DetailTransfer"].execute(frames, still, **DEFAULTS | changes)


def test_the_menu_offers_what_the_core_knows(nodes: Any) -> None:
    entries = {entry.id: entry.as_dict() for entry in nodes["DetailTransfer"].GET_SCHEMA().inputs}
    own = DetailSettings()
    for name in ("mode", "size", "residual", "band", "transparent"):
        assert entries[name]["default"] == getattr(own, name), name
    assert tuple(entries["mode"]["options"]) == settings.MODES
    assert tuple(entries["size"]["options"]) == (*settings.SIZES, "custom")
    for name in ("width", "height"):
        assert entries[name]["max"] == settings.MAX_SIDE_PX


def test_the_loop_has_the_stills_size_and_pixels(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    images, loop, matte, fps = run(nodes, frames, still, mask=mask).result
    assert images.shape == (8, *still.shape[1:]) and fps == 8
    assert images[0].equal(still[0])
    assert images.equal(torch.stack(list(loop)))
    assert matte.shape == still.shape[:3] and (matte - mask).abs().mean() < 0.02
    small = F.interpolate(images.movedim(-1, 1), (48, 64), mode="area").movedim(1, -1)
    assert (small - frames).abs().mean() < 0.25 * (frames[0] - frames).abs().mean()


def test_stream_draws_only_the_first_frame(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    images, loop, *_ = run(nodes, frames, still, mask=mask, deliver="stream").result
    assert images.equal(still) and len(loop) == 8


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"size": "model"}, (48, 64)),
        ({"size": "custom", "width": 90, "height": 160}, (160, 90)),
        ({"size": "1080p", "deliver": "stream"}, (1080, 1440)),
        ({"mode": "off"}, (144, 192)),
        ({"mode": "elastic", "residual": 1.0}, (144, 192)),
    ],
)
def test_sizes_and_modes(
    nodes: Any,
    frames: torch.Tensor,
    still: torch.Tensor,
    mask: torch.Tensor,
    changes: dict[str, Any],
    size: tuple[int, int],
) -> None:
    images = run(nodes, frames, still, mask=mask, **changes).result[0]
    assert images.shape[1:] == (*size, 3) and images.isfinite().all()


def test_more_frames_per_second(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    images, _, _, fps = run(nodes, frames, still, mask=mask, fps=24.0).result
    assert len(images) == 24 and fps == 24
    before = run(nodes, frames, still, mask=mask).result[0]
    assert (images[::3] - before).abs().max() < 0.02


def test_transparent_draws_the_object_alone(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    images = run(nodes, frames, still, mask=mask, transparent=True).result[0]
    assert images.shape == (8, 144, 192, 4)
    assert images[:, 0, 0, 3].max() == 0 and images[:, 72, 96, 3].min() > 0.999


def test_the_still_alone_is_enough(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    """The object is found by its transparency, and frames with a fourth channel are read."""
    cut_out = torch.cat([still, mask[..., None]], -1)
    opaque = torch.cat([frames, torch.ones(*frames.shape[:3], 1)], -1)
    images = run(nodes, opaque, cut_out, transparent=True).result[0]
    assert images[0, ..., 3].sub(mask[0]).abs().mean() < 0.02


def test_the_plate_appears_behind_the_object(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    """The disc moves to the left and uncovers a stripe on its right."""
    plate = torch.full_like(still, 0.5)
    plate[:, 60:84, 96:] = torch.tensor([0.0, 1.0, 0.0])
    images = run(nodes, frames, still, mask=mask, plate=plate).result[0]
    assert images[4, 72, 128, 1] > 0.9


class Softened:
    """A VAE like ComfyUI's that blurs: it crops to multiples of 8."""

    def __init__(self, latent_dim: int = 2) -> None:
        self.latent_dim, self.calls = latent_dim, []

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls.append(len(pixels))
        height, width = (side - side % 8 for side in pixels.shape[1:3])
        return F.avg_pool2d(pixels[:, :height, :width].movedim(-1, 1), 4)

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        pixels = F.interpolate(latent, scale_factor=4, mode="bilinear").movedim(1, -1)
        return pixels[None] if self.latent_dim == 3 else pixels


def test_a_vae_makes_the_motion_more_exact(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    vae = Softened()
    soft = vae.decode(vae.encode(frames))
    truth = 0.1 * torch.arange(8).mul(2 * torch.pi / 8).sin()

    def error(**given: Any) -> float:
        motion = run(nodes, soft, still, mask=mask, **given).result[1].motion
        return float((motion.object.poses[:, 1] - truth).abs().max())

    assert error(vae=vae) < 0.01
    assert error(vae=vae) <= error() + 1e-3


def test_a_vae_of_a_video_model_gets_one_frame_at_a_time(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    vae = Softened(latent_dim=3)
    run(nodes, frames, still, mask=mask, vae=vae)
    assert vae.calls and set(vae.calls) == {1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"deliver": "later"}, "deliver must be 'images' or 'stream', got 'later'"),
        ({"mode": "magic"}, "mode must be one of auto, rigid, elastic, off, got 'magic'"),
        ({"size": "8k"}, "size must be one of .* got '8k'"),
        ({"mask": torch.zeros(1, 64, 64)}, "the mask is empty"),
        ({"mask": torch.ones(1, 64, 640)}, "the mask is 640 x 64 pixels"),
        ({"transparent": True, "mode": "off"}, "transparent needs an object"),
        ({"plate": torch.zeros(1, 8, 8, 3)}, r"the plate must be \[144, 192, 3\]"),
    ],
)
def test_invalid_inputs_raise_one_sentence(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(LoopAnimateError, match=words):
        run(nodes, frames, still, **changes)


def test_a_vae_of_another_size_raises_one_sentence(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    with pytest.raises(
        LoopAnimateError, match=r"VAE turns .* of 60 x 44 into .* of 56 x 40 pixels"
    ):
        run(nodes, frames[:, :44, :60], still, mask=mask, vae=Softened())


def test_the_matte_is_shown_in_the_node(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor, tmp_path: Path
) -> None:
    (shown,) = run(nodes, frames, still, mask=mask).ui["images"]
    with Image.open(tmp_path / shown["type"] / shown["filename"]) as picture:
        pixels = np.asarray(picture.convert("RGB")) / 255
    assert pixels.shape == still.shape[1:]
    assert np.abs(pixels[72, 96] - still[0, 72, 96].numpy()).max() < 0.01
    assert pixels[2, 2].max() < 0.3


def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What progress bars are told from now on."""
    from comfy import utils

    told: list[tuple[int, int]] = []
    monkeypatch.setattr(utils, "hook", lambda done, total: told.append((done, total)))
    return told


def test_progress_is_shown_for_every_frame(
    nodes: Any,
    frames: torch.Tensor,
    still: torch.Tensor,
    mask: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = watched(monkeypatch)
    images, loop, *_ = run(nodes, frames, still, mask=mask).result
    assert told == [(number, 8) for number in range(1, 9)]
    told.clear()
    nodes["SaveLoop"].execute(images[:1], **SAVE | {"repeats": 2}, loop=loop)
    assert told[-1] == (16, 16) and told == sorted(told)


def test_cancelling_stops_between_frames_and_leaves_no_file(
    nodes: Any,
    frames: torch.Tensor,
    still: torch.Tensor,
    mask: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from comfy import model_management, utils

    _, loop, *_ = run(nodes, frames, still, mask=mask, deliver="stream").result

    def cancel(done: int, _total: int) -> None:
        model_management.interrupt_current_processing(done == 3)

    monkeypatch.setattr(utils, "hook", cancel)
    for work in (
        lambda: run(nodes, frames, still, mask=mask),
        lambda: nodes["SaveLoop"].execute(still, **SAVE, loop=loop),
    ):
        with pytest.raises(model_management.InterruptProcessingException):
            work()
    assert not [path for path in (tmp_path / "output").rglob("*") if path.is_file()]


def test_save_loop_saves_the_stream_and_passes_images_on(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    images, loop, *_ = run(nodes, frames, still, mask=mask, deliver="stream").result
    output = nodes["SaveLoop"].execute(images, **SAVE, loop=loop)
    passed_on, path = output.result
    assert passed_on is images
    assert output.ui["loopanimate_saved"][0]["frames"] == 8
    saved, _ = read_video(path)
    assert saved.shape == (8, *still.shape[1:])
    assert (saved - torch.stack(list(loop))).abs().max() < 0.01


def test_a_stream_is_cropped_by_the_preset_and_keeps_transparency(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    _, loop, *_ = run(nodes, frames, still, mask=mask, transparent=True, deliver="stream").result
    changes = {"preset": "square", "format": "png"}
    path = nodes["SaveLoop"].execute(still, **SAVE | changes, loop=loop).result[1]
    saved, _ = read_video(path, alpha=True)
    assert saved.shape == (8, 144, 144, 4)
    assert (saved[..., 3] - torch.stack(list(loop))[:, :, 24:168, 3]).abs().max() < 0.01


def test_memory_of_a_stream_does_not_grow_with_its_frames(
    nodes: Any, frames: torch.Tensor, still: torch.Tensor, mask: torch.Tensor
) -> None:
    """NumPy's arrays, which hold every frame that is drawn."""
    peaks = []
    for fps in (8.0, 64.0):
        changes = {"size": "custom", "width": 640, "height": 480, "fps": fps}
        images, loop, *_ = run(nodes, frames, still, mask=mask, deliver="stream", **changes).result
        tracemalloc.start()
        nodes["SaveLoop"].execute(images, **SAVE | {"format": "mp4"}, loop=loop)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    frame_bytes = 640 * 480 * 3 * 4
    assert peaks[0] > frame_bytes  # frames are seen by tracemalloc
    assert peaks[1] < peaks[0] + 2 * frame_bytes
