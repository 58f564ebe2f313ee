"""CLIP's text and image encoders in plain torch, with the parameter names and the numbers of transformers.

transformers takes seconds to import; these are the few layers of it that a bundle needs (`CLIPTextModel`,
`CLIPVisionModelWithProjection`). Weights are loaded, not drawn. Radford et al. 2021, arXiv:2103.00020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .tiny_vae import Settings


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def gelu_tanh(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "quick_gelu": quick_gelu,
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
}

# transformers' defaults for what a config may leave out
_DEFAULTS: dict[str, Any] = {
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
TEXT_DEFAULTS: dict[str, Any] = {
    **_DEFAULTS,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_attention_heads": 8,
    "vocab_size": 49_408,
    "max_position_embeddings": 77,
}
IMAGE_DEFAULTS: dict[str, Any] = {
    **_DEFAULTS,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "num_channels": 3,
}


@dataclass(frozen=True)
class TextStates:
    """What `TextEncoder` returns: `last_hidden_state` `[N, T, D]`."""

    last_hidden_state: Tensor


@dataclass(frozen=True)
class ImageEmbeds:
    """What `ImageEncoder` returns: `image_embeds` `[N, D]`, projected, not normalised."""

    image_embeds: Tensor


class Attention(nn.Module):
    """Multi-head self-attention; in the text encoder a token sees those before it."""

    def __init__(self, settings: Settings, causal: bool) -> None:
        super().__init__()
        width, self.heads = settings.hidden_size, settings.num_attention_heads
        if width % self.heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got {width} and {self.heads}"
            )
        self.causal = causal
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (  # [N, T, D] -> [N, heads, T, D / heads]
            project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        read = F.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.out_proj(read.transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        if settings.hidden_act not in ACTIVATIONS:
            raise ValueError(
                f"hidden_act must be one of {', '.join(ACTIVATIONS)}, got {settings.hidden_act!r}"
            )
        self.activation = ACTIVATIONS[settings.hidden_act]
        self.fc1 = nn.Linear(settings.hidden_size, settings.intermediate_size)
        self.fc2 = nn.Linear(settings.intermediate_size, settings.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))


class Layer(nn.Module):
    """A transformer layer that normalises first."""

    def __init__(self, settings: Settings, causal: bool) -> None:
        super().__init__()
        self.self_attn = Attention(settings, causal)
        self.layer_norm1 = _norm(settings)
        self.mlp = MLP(settings)
        self.layer_norm2 = _norm(settings)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Layers(nn.Module):
    """A stack whose parameters are named `layers.0`, `layers.1`, …"""

    def __init__(self, settings: Settings, causal: bool) -> None:
        super().__init__()
        count = settings.num_hidden_layers
        self.layers = nn.ModuleList([Layer(settings, causal) for _ in range(count)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class TextEmbeddings(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.token_embedding = _table(settings.vocab_size, settings.hidden_size)
        self.position_embedding = _table(settings.max_position_embeddings, settings.hidden_size)

    def forward(self, ids: Tensor) -> Tensor:
        return self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]


class TextEncoder(nn.Module):
    """Token ids `[N, T]` to states `[N, T, D]`.

    Args:
        settings: a bundle's `text_encoder` entry.

    Raises:
        ValueError: the settings are not those of a CLIP; `bundle.components.build_on_meta` says whose they are.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = Settings({**TEXT_DEFAULTS, **settings})
        self.embeddings = TextEmbeddings(self.config)
        self.encoder = Layers(self.config, causal=True)
        self.final_layer_norm = _norm(self.config)

    def forward(self, input_ids: Tensor) -> TextStates:
        return TextStates(self.final_layer_norm(self.encoder(self.embeddings(input_ids))))


class PatchEmbeddings(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width, patch_px = settings.hidden_size, settings.patch_size
        patches = (settings.image_size // patch_px) ** 2
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.patch_embedding = nn.Conv2d(
            settings.num_channels, width, patch_px, stride=patch_px, bias=False
        )
        self.position_embedding = _table(patches + 1, width)

    def forward(self, pictures: Tensor) -> Tensor:
        patches = self.patch_embedding(pictures).flatten(2).transpose(1, 2)  # [N, patches, D]
        first = self.class_embedding.expand(len(patches), 1, -1)
        return torch.cat([first, patches], 1) + self.position_embedding.weight


class VisionTransformer(nn.Module):
    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(settings)
        self.pre_layrnorm = _norm(settings)  # spelt so in every file
        self.encoder = Layers(settings, causal=False)
        self.post_layernorm = _norm(settings)

    def forward(self, pictures: Tensor) -> Tensor:
        states = self.encoder(self.pre_layrnorm(self.embeddings(pictures)))
        return self.post_layernorm(states[:, 0])


class ImageEncoder(nn.Module):
    """Normalised pictures `[N, 3, image_size, image_size]` to embeddings `[N, projection_dim]`.

    Args:
        settings: a bundle's `image_encoder` entry.

    Raises:
        ValueError: the settings are not those of a CLIP; `bundle.components.build_on_meta` says whose they are.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = Settings({**IMAGE_DEFAULTS, **settings})
        self.vision_model = VisionTransformer(self.config)
        self.visual_projection = nn.Linear(
            self.config.hidden_size, self.config.projection_dim, bias=False
        )

    def forward(self, pixel_values: Tensor) -> ImageEmbeds:
        return ImageEmbeds(self.visual_projection(self.vision_model(pixel_values)))


def _norm(settings: Settings) -> nn.LayerNorm:
    return nn.LayerNorm(settings.hidden_size, eps=settings.layer_norm_eps)


def _table(rows: int, width: int) -> nn.Embedding:
    """An embedding whose weights are still to be loaded.

    Drawing them, as `nn.Embedding` does, imports all of torch's compiler on the "meta" device (1.2 s).
    """
    return nn.Embedding.from_pretrained(torch.empty(rows, width), freeze=False)
