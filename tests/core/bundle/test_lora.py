"""LoRA files of other tools, with their real names, on a small network."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from loopanimate_core import LoopAnimateError, LoopUNet, LoopUNetConfig
from loopanimate_core.bundle.lora import merge_lora, read_lora
from loopanimate_core.cli.animate import lora_of

pytestmark = pytest.mark.numeric

RANK = 2
MODULE = "down_blocks.0.motion_modules.0."
LAYERS = {
    # AnimateDiff's v2_lora_ZoomIn.ckpt and its like
    "temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora": "attn1.to_q",
    "temporal_transformer.transformer_blocks.0.attention_blocks.1.processor.to_v_lora": "attn2.to_v",
    "temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_out_lora": "attn1.to_out.0",
    # the same, trained on other layers too
    "temporal_transformer.transformer_blocks.0.ff.net.0.processor.proj_lora": "ff.net.0.proj",
}


@pytest.fixture(scope="module")
def unet() -> LoopUNet:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "cross_attention_dim": 12,
    }
    heads: dict[str, Any] = {
        "num_attention_heads": 2,
        "motion_num_attention_heads": 2,
        "norm_num_groups": 4,
    }
    return LoopUNet(LoopUNetConfig(**sizes, **heads))


def weight_of(unet: LoopUNet, layer: str) -> nn.Parameter:
    return unet.get_parameter(f"{MODULE}transformer_blocks.0.{layer}.weight")


def pair(unet: LoopUNet, layer: str) -> tuple[Tensor, Tensor]:
    rows, columns = weight_of(unet, layer).shape
    generator = torch.Generator().manual_seed(len(layer))
    return (
        torch.randn(RANK, columns, generator=generator),
        torch.randn(rows, RANK, generator=generator),
    )


def written(path: Path, tensors: dict[str, Tensor]) -> Path:
    """A safetensors file, or a checkpoint as AnimateDiff publishes it."""
    if path.suffix == ".ckpt":
        torch.save({"state_dict": tensors, "global_step": 3}, path)
    else:
        save_file(tensors, str(path))
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_animatediffs_motion_loras(unet: LoopUNet, tmp_path: Path, suffix: str) -> None:
    tensors = {}
    for name, layer in LAYERS.items():
        down, up = pair(unet, layer)
        tensors |= {f"{MODULE}{name}.down.weight": down, f"{MODULE}{name}.up.weight": up}
    path = written(tmp_path / f"v2_lora_ZoomIn{suffix}", tensors)
    changed = copy.deepcopy(unet)
    merge_lora(changed, read_lora(path, changed), 0.5)
    for layer in LAYERS.values():
        down, up = pair(unet, layer)
        expected = weight_of(unet, layer) + 0.5 * up @ down
        torch.testing.assert_close(weight_of(changed, layer), expected)
    untouched = "attn2.to_k"
    assert torch.equal(weight_of(changed, untouched), weight_of(unet, untouched))


@pytest.mark.parametrize("prefix", ["", "unet.", "diffusion_model."])
@pytest.mark.parametrize("ends", [("lora_A", "lora_B"), ("lora.down", "lora.up")])
def test_diffusers_names(
    unet: LoopUNet, tmp_path: Path, prefix: str, ends: tuple[str, str]
) -> None:
    down, up = pair(unet, "attn1.to_q")
    name = f"{prefix}{MODULE}transformer_blocks.0.attn1.to_q"
    tensors = dict(zip((f"{name}.{end}.weight" for end in ends), (down, up), strict=True))
    (update,) = read_lora(written(tmp_path / "a.safetensors", tensors), unet).values()
    torch.testing.assert_close(update.delta(), up @ down)


def test_nothing_is_ignored(unet: LoopUNet, tmp_path: Path) -> None:
    down, up = pair(unet, "attn1.to_q")
    good = f"{MODULE}transformer_blocks.0.attn1.to_q"
    for name, sentence in (
        (
            "down_blocks.7.motion_modules.0.transformer_blocks.0.attn1.to_q",
            "no linear layer down_blocks.7",
        ),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", "no linear layer lora_te_text_model"),
    ):
        both = {
            f"{n}.lora_{e}.weight": t for n in (good, name) for e, t in (("A", down), ("B", up))
        }
        path = written(tmp_path / "b.safetensors", {k: v.clone() for k, v in both.items()})
        with pytest.raises(LoopAnimateError, match=sentence):
            read_lora(path, unet)
    path = written(
        tmp_path / "c.safetensors", {f"{good}.lora_A.weight": down, f"{good}.hada_w1_a": up}
    )
    with pytest.raises(LoopAnimateError, match="hada_w1_a"):
        read_lora(path, unet)
    path = written(tmp_path / "d.safetensors", {f"{good}.lora_A.weight": down})
    with pytest.raises(LoopAnimateError, match="has no tensor"):
        read_lora(path, unet)


@pytest.mark.parametrize(
    ("given", "file", "strength"),
    [
        ("zoom.ckpt", "zoom.ckpt", 1.0),
        ("zoom.ckpt:0.6", "zoom.ckpt", 0.6),
        ("zoom.ckpt:-1", "zoom.ckpt", -1.0),
        ("C:\\loras\\zoom.ckpt", "C:\\loras\\zoom.ckpt", 1.0),
        ("C:\\loras\\zoom.ckpt:2", "C:\\loras\\zoom.ckpt", 2.0),
    ],
)
def test_the_strength_of_the_command_line(given: str, file: str, strength: float) -> None:
    assert lora_of(given) == (Path(file), strength)
