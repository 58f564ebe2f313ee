"""The salient object from alpha, from GrabCut on drawn stickers, and from ONNX networks."""

import logging
import math
import sys

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.grabcut import refined_mask
from loopanimate_core.picture.saliency import salient_mask
from loopanimate_core.picture.salient_network import onnx_scores

pytestmark = pytest.mark.numeric


def disc(
    height: int = 96, width: int = 128, x: float = 0.5, y: float = 0.5, radius: float = 0.3
) -> torch.Tensor:
    """`[H, W]`: 1 inside a disc; position and radius as fractions of width and height."""
    rows = torch.arange(height)[:, None] - y * height
    columns = torch.arange(width)[None] - x * width
    return ((rows**2 + columns**2).sqrt() < radius * height).float()


def paint(mask: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """A shaded red object with two dark eyes on a background."""
    height, width = mask.shape
    shade = torch.linspace(1.0, 0.6, height)[:, None, None] * torch.tensor([0.9, 0.25, 0.2])
    picture = torch.where(mask[..., None] > 0, shade.expand(height, width, 3), background)
    eyes = sum(disc(height, width, x, 0.45, 0.04) for x in (0.44, 0.56)) * mask
    return torch.where(eyes[..., None] > 0, torch.full_like(picture, 0.1), picture)


def backgrounds(height: int = 96, width: int = 128) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.linspace(0, 1, height)[:, None, None]
    soft = torch.rand(1, 3, 4, 5, generator=generator) * 0.5 + 0.4
    soft = F.interpolate(soft, (height, width), mode="bicubic", align_corners=True)[0]
    pastel = torch.tensor([0.8, 0.9, 0.95]).expand(height, width, 3)
    grain = torch.randn(height, width, 3, generator=generator) * 0.03
    return {
        "pastel": pastel,
        "grain": (pastel + grain).clamp(0, 1),
        "gradient": rows * torch.tensor([0.2, 0.5, 0.9])
        + (1 - rows) * torch.tensor([0.9, 0.8, 0.6]),
        "soft": soft.permute(1, 2, 0).clamp(0, 1),
    }


def iou(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found * true).sum() / torch.maximum(found, true).sum())


@pytest.mark.parametrize("kind", ["pastel", "grain", "gradient", "soft"])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.4, 0.55)])
def test_grabcut_finds_drawn_stickers(kind, place):
    true = disc(x=place[0], y=place[1])
    found = salient_mask(paint(true, backgrounds()[kind]), method="grabcut")
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert iou(found, true) > 0.95


def test_grabcut_is_deterministic_and_sizes_agree():
    picture = paint(disc(400, 700), backgrounds(400, 700)["soft"])
    first = salient_mask(picture, method="grabcut")
    assert first.shape == (400, 700)
    assert torch.equal(first, salient_mask(picture, method="grabcut"))
    assert iou(first, disc(400, 700)) > 0.95


def test_grabcut_finds_an_object_on_a_busy_background():
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(1, 3, 24, 32, generator=generator)
    busy = F.interpolate(cells, (96, 128), mode="nearest")[0].permute(1, 2, 0)
    true = disc(radius=0.35)
    assert iou(salient_mask(paint(true, busy), method="grabcut"), true) > 0.6


def test_without_a_salient_object_the_mask_is_the_whole_picture(caplog):
    with caplog.at_level(logging.WARNING):
        mask = salient_mask(torch.full((40, 40, 3), 0.5))
    assert mask.min() == 1
    assert "whole picture" in caplog.text


@pytest.mark.parametrize("size", [(96, 128), (301, 97), (40, 333)])
def test_the_bundled_network_finds_an_object_at_any_size(size):
    true = disc(*size, radius=0.33 * min(size) / size[0])
    picture = paint(true, backgrounds(*size)["soft"])
    found = salient_mask(picture, method="onnx")
    assert found.shape == size
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert iou(found, true) > 0.8


def test_without_onnxruntime_auto_is_grabcut(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    true = disc()
    picture = paint(true, backgrounds()["gradient"])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(salient_mask(picture), salient_mask(picture, method="grabcut"))
    assert "onnxruntime is not installed" in caplog.text


def test_refinement_follows_the_pictures_edge():
    true = disc(192, 256)
    picture = paint(true, backgrounds(192, 256)["pastel"])
    blurred = F.avg_pool2d(true[None, None], 25, stride=1, padding=12, count_include_pad=False)[
        0, 0
    ]
    rough = (blurred * 0.9 + 0.05).clamp(0, 1)
    assert iou(refined_mask(picture, rough, 0.5).float(), true) > 0.97


def test_refinement_keeps_the_scores_where_colours_do_not_tell():
    noise = torch.rand(96, 128, 3, generator=torch.Generator().manual_seed(0))
    scores = disc() * 0.6 + 0.2
    assert iou(refined_mask(noise, scores, 0.5).float(), disc()) > 0.75


def test_alpha_is_used_first_if_present():
    true = disc()
    picture = paint(disc(x=0.3), backgrounds()["pastel"])
    assert torch.equal(salient_mask(picture, alpha=true * 0.9), true)
    assert torch.equal(
        salient_mask(picture, alpha=true * 0.9, method="alpha", threshold=0.95), torch.ones(96, 128)
    )
    ignored = salient_mask(picture, alpha=torch.ones(96, 128))
    assert iou(ignored, disc(x=0.3)) > 0.95


@pytest.mark.parametrize("grow_px", [-5, -1, 0, 1, 5])
def test_growing_moves_the_edge_by_so_many_pixels(grow_px):
    mask = salient_mask(torch.zeros(96, 128, 3), alpha=disc(), grow_px=grow_px)
    radius = math.sqrt(float(mask.sum()) / math.pi)
    assert radius == pytest.approx(0.3 * 96 + grow_px, abs=0.7)


def graph(path, size=(32, 32), *, kind=TensorProto.FLOAT, scale=1.0, offset=0.0, channels=3):
    """An ONNX network: the mean of the normalised channels, scaled and shifted, `[1, 1, H, W]`."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    weights = np.full((1, channels, 1, 1), scale / channels, dtype)
    nodes = [helper.make_node("Conv", ["picture", "weights", "bias"], ["score"])]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "toy",
            [helper.make_tensor_value_info("picture", kind, [1, channels, *size])],
            [helper.make_tensor_value_info("score", kind, [1, 1, *size])],
            [
                onnx.numpy_helper.from_array(weights, "weights"),
                onnx.numpy_helper.from_array(np.array([offset], dtype), "bias"),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


def white_on_black() -> tuple[torch.Tensor, torch.Tensor]:
    true = disc()
    return true[..., None].expand(-1, -1, 3), true


@pytest.mark.parametrize("size", [(32, 48), ("height", "width")])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_onnx_networks_of_fixed_and_free_size(tmp_path, size, kind):
    picture, true = white_on_black()
    path = graph(tmp_path / "u2net.onnx", size, kind=kind)
    mask = salient_mask(picture, model_path=path, threshold=0.7)
    assert iou(mask, true) > 0.9


def test_normalisation_is_chosen_by_name_or_argument(tmp_path):
    grey = torch.full((16, 16, 3), 0.75)
    by_name = onnx_scores(grey, graph(tmp_path / "isnet.onnx"))
    assert torch.allclose(by_name, torch.tensor(0.25), atol=1e-5)
    path = graph(tmp_path / "other.onnx")
    assert torch.allclose(onnx_scores(grey, path, "half"), torch.tensor(0.25), atol=1e-5)
    expected = np.mean((0.75 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225]))
    scaled = onnx_scores(grey, graph(tmp_path / "tenth.onnx", scale=0.1))
    assert torch.allclose(scaled, torch.tensor(float(expected) / 10), atol=1e-5)


def test_scores_outside_the_range_are_logits_or_scaled(tmp_path):
    picture, true = white_on_black()
    logits = onnx_scores(picture, graph(tmp_path / "isnet-logits.onnx", scale=8.0), "half")
    assert float(logits[48, 64]) == pytest.approx(torch.tensor(4.0).sigmoid().item(), abs=1e-4)
    levels = graph(tmp_path / "isnet-levels.onnx", scale=255.0, offset=127.5)
    scores = onnx_scores(picture, levels)
    assert (float(scores.min()), float(scores.max())) == pytest.approx((0, 1), abs=1e-4)
    assert iou((scores > 0.5).float(), true) > 0.9


def test_a_changed_model_file_is_read_again(tmp_path):
    import os

    grey = torch.full((16, 16, 3), 0.75)
    path = graph(tmp_path / "isnet.onnx")
    onnx_scores(grey, path)
    graph(path, scale=2.0)
    os.utime(path, ns=(1, 1))
    assert torch.allclose(onnx_scores(grey, path), torch.tensor(0.5), atol=1e-5)


def test_invalid_onnx_models_raise(tmp_path):
    picture, _ = white_on_black()
    with pytest.raises(LoopAnimateError, match="no ONNX model"):
        salient_mask(picture, model_path=tmp_path / "missing.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08not a model")
    with pytest.raises(LoopAnimateError, match=r"not a usable ONNX model .*\)$"):
        salient_mask(picture, model_path=tmp_path / "broken.onnx")
    with pytest.raises(LoopAnimateError, match=r"\[1, 3, H, W\]"):
        salient_mask(picture, model_path=graph(tmp_path / "four.onnx", channels=4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "'magic'"),
        ({"method": "alpha"}, "transparency"),
        ({"threshold": 0.0}, "between 0 and 1"),
        ({"grow_px": 600}, r"-512 to 512"),
        ({"alpha": torch.ones(3, 3)}, "picture's size"),
        ({"normalisation": "other", "model_path": "isnet.onnx"}, "normalisation"),
    ],
)
def test_invalid_arguments_raise(options, message):
    with pytest.raises(LoopAnimateError, match=message):
        salient_mask(torch.rand(32, 32, 3), **options)


@pytest.mark.parametrize("options", [{"method": "grabcut"}, {"method": "onnx"}, {"grow_px": 2}])
def test_without_opencv_the_error_says_what_to_install(monkeypatch, options):
    monkeypatch.setitem(sys.modules, "cv2", None)
    picture = paint(disc(), backgrounds()["gradient"])
    with pytest.raises(LoopAnimateError, match="needs the Python package cv2, which is not inst"):
        salient_mask(picture, **options)
