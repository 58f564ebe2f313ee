"""How well a picture of the object fits the caption, by a CLIP model of the user."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from loopanimate_core.errors import LoopAnimateError


def clip_score(picture: np.ndarray, caption: str, folder: Path) -> float:
    """Cosine of a picture [H, W, 3] uint8 and a caption, -1..1; 0.2 to 0.35 is usual for what fits.

    Args:
        folder: a CLIP model with tokeniser and processor, as transformers saves them. Nothing is downloaded.

    Raises:
        LoopAnimateError: there is no such model.
    """
    import torch

    model, processor = _open(folder)
    inputs = processor(
        text=[caption],
        images=[picture],
        return_tensors="pt",
        padding=True,
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
    )
    with torch.no_grad():
        output = model(**inputs)
    image, text = output.image_embeds[0], output.text_embeds[0]
    return float(torch.nn.functional.cosine_similarity(image, text, dim=0))


@lru_cache(maxsize=1)
def _open(folder: Path) -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    if not (folder / "config.json").is_file():
        raise LoopAnimateError(
            f"measure.clip must be a folder with a CLIP model, but {folder} is not"
        )
    try:
        model = CLIPModel.from_pretrained(folder, local_files_only=True).eval()
        return model, CLIPProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise LoopAnimateError(f"{folder} is not a usable CLIP model ({reason})") from error
