"""CLIP and CLIP_VISION of a bundle, of any size and with any vocabulary, as ComfyUI's own objects."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import comfy.clip_vision
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import folder_paths
import torch
from torch import Tensor

from loopanimate_core.encoders.tokenizer import (
    END,
    START,
    TOKENIZER_CLIP,
    vocabulary_of,
    write_tokenizer_files,
)
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.shapes import Shape


def build_clip(
    settings: Mapping[str, Any], tokenizer: str | dict[str, Any], state: Mapping[str, Tensor]
) -> comfy.sd.CLIP:
    """Build a CLIP.

    Args:
        settings, tokenizer: a bundle's `text_encoder` and `tokenizer` entries.
        state: the text encoder's tensors, under `text_model.`

    Raises:
        LoopAnimateError: the tensors do not fit the network.
    """
    vocabulary, _merges = vocabulary_of(tokenizer)
    width, length = settings["hidden_size"], settings["max_position_embeddings"]
    special = {"start": vocabulary[START], "end": vocabulary[END], "pad": vocabulary[END]}

    class Encoder(comfy.sd1_clip.SDClipModel):
        def __init__(
            self, device: Any = "cpu", dtype: Any = None, model_options: Any = None
        ) -> None:
            super().__init__(
                device=device,
                dtype=dtype,
                max_length=length,
                special_tokens=special,
                textmodel_json_config={**settings, "eos_token_id": special["end"]},
                return_projected_pooled=False,
                model_options=model_options or {},
            )
            # ComfyUI always makes an embedding of CLIP's 49,408 tokens
            self.transformer.set_input_embeddings(
                self.operations.Embedding(settings["vocab_size"], width, device=device, dtype=dtype)
            )

    class Model(comfy.sd1_clip.SD1ClipModel):
        def __init__(
            self, device: Any = "cpu", dtype: Any = None, model_options: Any = None
        ) -> None:
            super().__init__(
                device=device, dtype=dtype, model_options=model_options or {}, clip_model=Encoder
            )

    with ExitStack() as stack:
        folder = None  # ComfyUI's copy of CLIP's vocabulary
        if tokenizer != TOKENIZER_CLIP:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            write_tokenizer_files(tokenizer, folder)

        class Words(comfy.sd1_clip.SDTokenizer):
            def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
                super().__init__(
                    tokenizer_path=folder,
                    embedding_directory=embedding_directory,
                    max_length=length,
                    embedding_size=width,
                    tokenizer_data=tokenizer_data or {},
                )

        class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
            def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None) -> None:
                super().__init__(
                    embedding_directory=embedding_directory,
                    tokenizer_data=tokenizer_data or {},
                    tokenizer=Words,
                )

        clip = comfy.sd.CLIP(
            comfy.supported_models_base.ClipTarget(Tokenizer, Model),
            embedding_directory=folder_paths.get_folder_paths("embeddings"),
            parameters=sum(tensor.numel() for tensor in state.values()),
        )
    # text_projection changes the pooled output alone, which LoopAnimate does not use
    missing, unknown = clip.load_sd({**state, "text_projection.weight": torch.eye(width)})
    _require_complete("text encoder", missing, unknown)
    return clip


def build_clip_vision(
    settings: Mapping[str, Any], state: Mapping[str, Tensor], shapes: tuple[Shape, ...]
) -> comfy.clip_vision.ClipVisionModel:
    """Build a CLIP_VISION.

    Args:
        settings: a bundle's `image_encoder` entry.
        state: its tensors, under `vision_model.` and `visual_projection.`
        shapes: the sizes that the bundle's model was trained on, for `shapes_of`.

    Raises:
        LoopAnimateError: the tensors do not fit the network.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"  # ClipVisionModel only takes a path
        path.write_text(json.dumps({"model_type": "clip_vision_model", **settings}))
        encoder: Any = comfy.clip_vision.ClipVisionModel(str(path))
    missing, unknown = encoder.load_sd(dict(state))
    _require_complete("image encoder", missing, unknown)
    encoder.loopanimate_shapes = shapes
    return encoder


def shapes_of(clip_vision: Any) -> tuple[Shape, ...]:
    """The sizes that the model of a CLIP_VISION was trained on; empty unless `build_clip_vision` made it.

    Build Loop Conditions has no MODEL, but always the CLIP_VISION of one.
    """
    return getattr(clip_vision, "loopanimate_shapes", ())


def reads_motion(clip_vision: Any) -> bool:
    """Whether the model of a CLIP_VISION reads how far frames may go from the picture; so does one that is not known."""
    return getattr(clip_vision, "loopanimate_conditioning", "pia") == "pia"


def _require_complete(what: str, missing: Collection[str], unknown: Collection[str]) -> None:
    """ComfyUI itself would load the tensors that fit and leave the others uninitialised."""
    if missing:
        raise LoopAnimateError(f"the {what} is missing the tensor {min(missing)!r}")
    if unknown:
        raise LoopAnimateError(f"the {what} has an unknown tensor {min(unknown)!r}")
