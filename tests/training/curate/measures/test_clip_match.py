"""The score of picture and caption, by a small CLIP with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from curated_scenes import scene

from loopanimate_core.encoders.tokenizer import clip_vocabulary
from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import MeasureConfig
from loopanimate_training.curate.measure import measure
from loopanimate_training.curate.measures.clip_match import clip_score
from loopanimate_training.data.readers.rows import Blob, Row


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizer,
    )

    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={**small, "vocab_size": 49408},
        vision_config={**small, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(path)
    pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    vocab, merges = clip_vocabulary()
    (path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (path / "merges.txt").write_text("#version\n" + "\n".join(merges) + "\n", encoding="utf-8")
    CLIPProcessor(pixels, CLIPTokenizer.from_pretrained(path)).save_pretrained(path)
    return path


def test_the_score_is_a_cosine_of_both(folder: Path) -> None:
    picture = scene(1)[0]
    cat, dog = (clip_score(picture, text, folder) for text in ("a cat", "a dog " * 100))
    assert -1.0 <= cat <= 1.0 and cat != dog
    assert cat == clip_score(picture, "a cat", folder)
    assert cat != clip_score(255 - picture, "a cat", folder)


def test_clips_have_the_score_of_their_object(clips: Path, folder: Path) -> None:
    row = Row("a", Blob(clips / "kept.mp4"), "a ball")
    assert measure(row, MeasureConfig(f=4)).clip_score is None
    assert measure(row, MeasureConfig(f=4, clip=folder)).clip_score is not None


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match=r"measure\.clip must be a folder with a CLIP model"):
        clip_score(scene(1)[0], "a cat", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(LoopAnimateError, match="not a usable CLIP model"):
        clip_score(scene(1)[0], "a cat", tmp_path)
