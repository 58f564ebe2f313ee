"""Examples, training and export of the salient-object network at toy size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from loopanimate_core.picture.salient_network import onnx_scores
from loopanimate_training.data.photographs.split import is_held_out
from loopanimate_training.salient.examples import (
    Examples,
    Material,
    is_usable,
    load_labels,
)
from loopanimate_training.salient.export import EXPORT_PX, export_onnx
from loopanimate_training.salient.model import SalientNet
from loopanimate_training.salient.train import Stage, learning_rate_factors, train, training_loss

pytestmark = pytest.mark.numeric


@pytest.fixture
def material() -> Material:
    random = np.random.default_rng(0)
    disc = np.hypot(*np.mgrid[-20:20, -20:20]) < 18
    sticker = np.dstack([np.full((40, 40), 230), np.full((40, 40), 30), np.full((40, 40), 40)])
    rgba = np.dstack([sticker, 255 * disc]).astype(np.uint8)
    score = np.zeros((60, 80), np.uint8)
    score[15:45, 20:60] = 255
    return Material(
        backgrounds=[random.integers(0, 255, (64, 90, 3), dtype=np.uint8)],
        stickers=[rgba],
        cutouts=[rgba],
        labelled=[(np.dstack([score, score // 2, score // 3]), score)],
    )


@pytest.mark.parametrize("objects", ["stickers", "cutouts", "labelled"])
def test_composites_are_pictures_with_the_objects_mask(material: Material, objects: str) -> None:
    examples = Examples(material, 48)
    for seed in range(10):
        picture, mask = examples.composite(np.random.default_rng(seed), objects)
        assert picture.shape == (48, 48, 3) and mask.shape == (48, 48)
        assert picture.dtype == mask.dtype == np.float32
        assert picture.min() >= 0 and picture.max() <= 1
        assert 0 < mask.mean() < 1 and mask.max() <= 1


def test_examples_depend_on_the_generator_alone(material: Material) -> None:
    draws = [
        Examples(material, 32).composite(np.random.default_rng(3), "stickers") for _ in range(2)
    ]
    assert np.array_equal(draws[0][0], draws[1][0])
    assert np.array_equal(draws[0][1], draws[1][1])


def test_crops_of_labelled_photographs_keep_their_object(material: Material) -> None:
    examples = Examples(material, 48)
    for seed in range(20):
        picture, mask = examples.labelled(np.random.default_rng(seed))
        assert picture.shape == (48, 48, 3)
        assert 0.1 < mask.mean() < 0.95


@pytest.mark.parametrize(
    ("score", "usable"),
    [(0.0, False), (0.5, False), (1.0, False), ("object", True)],
)
def test_empty_and_uncertain_labels_are_not_usable(score: float | str, usable: bool) -> None:
    label = np.zeros((40, 40), np.uint8)
    if isinstance(score, str):
        label[10:30, 10:30] = 250
    else:
        label[:] = round(255 * score)
    assert is_usable(label) == usable


def test_labels_are_split_by_photograph(tmp_path: Path) -> None:
    label = np.zeros((30, 40), np.uint8)
    label[5:20, 5:20] = 255
    names = [f"animals-beast{chr(97 + k)}-abc{k}" for k in range(20)]
    for name in names:
        Image.fromarray(label).save(tmp_path / f"{name}-0.png")
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}-0.jpg")
    held_out = load_labels(tmp_path, held_out=True)
    assert len(held_out) == sum(map(is_held_out, names))
    assert len(held_out) + len(load_labels(tmp_path, held_out=False)) == len(names)


def test_the_network_returns_a_logit_per_pixel() -> None:
    network = SalientNet()
    logits, coarse = network(torch.rand(2, 3, 64, 96))
    assert logits.shape == (2, 1, 64, 96) and coarse.shape == (2, 1, 16, 24)
    assert network.eval()(torch.rand(1, 3, 32, 64)).shape == (1, 1, 32, 64)


def test_the_loss_is_smallest_for_the_true_mask() -> None:
    masks = torch.zeros(2, 1, 32, 32)
    masks[:, :, 8:20, 8:24] = 1
    small = torch.nn.functional.avg_pool2d(masks, 4)
    true = training_loss(20 * (masks - 0.5), 20 * (small - 0.5), masks)
    empty = training_loss(torch.full_like(masks, -10), torch.full_like(small, -10), masks)
    assert float(true) < 0.1 < float(empty)


def test_every_cycle_starts_and_ends_with_a_small_rate() -> None:
    factors = learning_rate_factors((Stage(150, 32, 0.0), Stage(150, 32, 0.5)))
    assert len(factors) == 300
    assert factors[0] < 0.05 and factors[-1] < 0.05
    assert max(factors) > 0.85


def test_training_resumes_and_exports(material: Material, tmp_path: Path) -> None:
    checkpoint = tmp_path / "salient.pt"
    short = ((Stage(2, 32, 0.4),),)
    train(material, checkpoint, short)
    assert torch.load(checkpoint, weights_only=True)["step"] == 2
    network = train(material, checkpoint, ((Stage(4, 32, 0.4),),))
    assert torch.load(checkpoint, weights_only=True)["step"] == 4
    export_onnx(network, tmp_path / "salient.onnx")
    onnx.checker.check_model(str(tmp_path / "salient.onnx"))
    picture = torch.rand(EXPORT_PX, EXPORT_PX, 3, generator=torch.Generator().manual_seed(0))
    scores = onnx_scores(picture, tmp_path / "salient.onnx", "half")
    with torch.no_grad():
        expected = network(picture.permute(2, 0, 1)[None]).sigmoid()[0, 0]
    assert torch.allclose(scores, expected, atol=0.02)  # weights in half precision
