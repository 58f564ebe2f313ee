"""LoRA: adapters leave the network as it is, merge exactly, and files read back to the same output."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from closeness import NETWORK, assert_close, assert_different
from safetensors.torch import load_file
from torch import Tensor, nn

from loopanimate_core.bundle import Bundle, read_bundle
from loopanimate_core.bundle.lora import kohya_name, merge_lora, read_lora, write_lora
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models.parts import is_idle, part_of
from loopanimate_training.config import LoraConfig, RunConfig
from loopanimate_training.model.lora import (
    adapter_updates,
    add_adapters,
    is_adapter,
    merge_adapters,
)
from loopanimate_training.model.start import open_start
from loopanimate_training.model.weights import trained_parameters

pytestmark = pytest.mark.numeric

MakeRun = Callable[..., RunConfig]
LORA = LoraConfig(rank=3, alpha=6.0)


def output(unet: nn.Module) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    size, width = (1, 9, 5, 8, 8), 16
    with torch.no_grad():
        return unet(
            torch.randn(size, generator=generator),
            torch.tensor([400]),
            torch.randn(1, 1, width, generator=generator),
            torch.randn(1, 7, width, generator=generator),
        )


@pytest.fixture
def bundle(toy_bundle_path: Path) -> Bundle:
    return read_bundle(toy_bundle_path)


def with_random_up(unet: nn.Module) -> None:
    """As after training: `up` is no longer zero."""
    torch.manual_seed(5)
    for name, parameter in unet.named_parameters():
        if name.endswith(".lora.up"):
            nn.init.normal_(parameter, std=0.05)


def test_new_adapters_change_nothing_and_sit_on_every_effective_layer(bundle: Bundle) -> None:
    unet, before = bundle.unet, output(bundle.unet)
    add_adapters(unet, LORA, seed=0)
    assert_close(output(unet), before, depth=NETWORK)
    expected = {
        name
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear)
        and part_of(f"{name}.weight").split(".")[0] in ("temm", "cab")
        and not is_idle(f"{name}.weight", unet.config)
    }
    assert set(adapter_updates(unet)) == expected and len(expected) > 50


def test_merged_weights_are_w_plus_scale_b_a(bundle: Bundle) -> None:
    unet = bundle.unet
    add_adapters(unet, LORA, seed=0)
    with_random_up(unet)
    wanted, updates = output(unet), adapter_updates(unet)
    before = {name: unet.get_parameter(f"{name}.weight").clone() for name in updates}
    merge_adapters(unet)
    assert not any(is_adapter(name) for name, _ in unet.named_parameters())
    for name, update in updates.items():
        by_hand = before[name] + LORA.alpha / LORA.rank * update.up @ update.down
        assert_close(unet.get_parameter(f"{name}.weight"), by_hand)
    assert_close(output(unet), wanted, depth=NETWORK)
    assert_different(output(read_bundle(str(bundle.path)).unet), wanted)


def test_a_file_reads_back_to_the_same_output(bundle: Bundle, tmp_path: Path) -> None:
    plain = copy.deepcopy(bundle.unet)
    add_adapters(bundle.unet, LORA, seed=0)
    with_random_up(bundle.unet)
    path = tmp_path / "style.safetensors"
    write_lora(path, adapter_updates(bundle.unet), {}, torch.float32)
    wanted = output(bundle.unet)
    merge_lora(plain, read_lora(path, plain))
    assert_close(output(plain), wanted, depth=NETWORK)

    names = {name.partition(".")[0] for name in load_file(path)}
    assert (
        "lora_unet_down_blocks_0_motion_modules_0_transformer_blocks_0_attn1_to_q" in names
        and "lora_unet_up_blocks_1_attentions_0_transformer_blocks_0_ff_net_0_proj" in names
    )
    assert load_file(path)[min(names) + ".alpha"].item() == LORA.alpha
    assert names == {kohya_name(name) for name in adapter_updates(bundle.unet)}


def test_files_for_other_networks_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    add_adapters(bundle.unet, LORA, seed=0)
    updates = adapter_updates(bundle.unet)
    path = tmp_path / "other.safetensors"
    write_lora(path, {"elsewhere.to_q": next(iter(updates.values()))}, {})
    with pytest.raises(LoopAnimateError, match="no linear layer lora_unet_elsewhere_to_q"):
        read_lora(path, bundle.unet)
    with pytest.raises(LoopAnimateError, match="is not a LoRA"):
        read_lora(str(bundle.path), bundle.unet)
    names = [name for name in updates if name.endswith("ff.net.2")]
    with pytest.raises(LoopAnimateError, match="must have shape"):
        merge_lora(
            bundle.unet, {name.replace("ff.net.2", "attn1.to_q"): updates[name] for name in names}
        )


def test_the_lora_row_trains_adapters_alone(make_run: MakeRun) -> None:
    config = make_run("3-lora", **{"model.lora.rank": 2})
    bundle = open_start(config.model, config.seed)
    trained = trained_parameters(bundle, config.model)
    assert trained and all(is_adapter(name) for name in trained)
    assert all(min(p.shape) == 2 for p in trained.values())
    assert config.stage == 3 and config.clip.frames == 35


def test_nothing_to_train_is_a_mistake(make_run: MakeRun) -> None:
    config = make_run(3, **{"model.train": "[]"})
    with pytest.raises(LoopAnimateError, match="nothing trains"):
        trained_parameters(open_start(config.model, 0), config.model)
