"""Few-step weights: an optional part of a bundle, applied to a copy of its UNet."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from closeness import NETWORK, assert_close, assert_different
from safetensors.torch import load_file
from torch import Tensor, nn
from toy_bundle import build_toy_bundle

from loopanimate_core.bundle import (
    Bundle,
    add_few_steps,
    bundle_info,
    read_bundle,
    read_parts,
    write_bundle,
)
from loopanimate_core.bundle.few_steps import few_step_tensors
from loopanimate_core.bundle.lora import LowRank, merge_lora
from loopanimate_core.bundle.tensorfile import read_header
from loopanimate_core.cli import main as loopanimate
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.settings import PRESETS, FewSteps, resolve_settings

FAST = FewSteps(steps=2)


def low_rank(bundle: Bundle, rank: int = 2) -> dict[str, LowRank]:
    """An update of every linear layer."""
    rng = torch.Generator().manual_seed(0)
    return {
        name: LowRank(
            torch.randn(rank, layer.in_features, generator=rng),
            0.1 * torch.randn(layer.out_features, rank, generator=rng),
            alpha=1.0,
        )
        for name, layer in bundle.unet.named_modules()
        if isinstance(layer, nn.Linear)
    }


def with_few_steps(bundle: Bundle, tensors: dict[str, Tensor]) -> Bundle:
    defaults = dataclasses.replace(bundle.config.defaults, fast=FAST)
    config = dataclasses.replace(bundle.config, defaults=defaults)
    return dataclasses.replace(bundle, config=config, few_steps=tensors)


@pytest.fixture
def plain() -> Bundle:
    return build_toy_bundle()


@pytest.fixture
def distilled(plain: Bundle) -> Bundle:
    bias = torch.ones_like(plain.unet.conv_in.bias)
    return with_few_steps(plain, {**few_step_tensors(low_rank(plain)), "conv_in.bias": bias})


def test_they_survive_a_file(distilled: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "fast.safetensors"
    write_bundle(path, distilled, torch.float32)
    found = read_bundle(path)
    assert found.config == distilled.config and found.config.defaults.fast == FAST
    assert found.few_steps.keys() == distilled.few_steps.keys()
    assert all(torch.equal(found.few_steps[n], t) for n, t in distilled.few_steps.items())
    parts = read_parts(path)
    assert parts.few_steps.keys() == found.few_steps.keys() and "few_steps" not in parts.states
    assert bundle_info(path).few_steps == sum(t.numel() for t in found.few_steps.values())


def test_a_bundle_without_them_is_a_file_of_the_first_format(plain: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    write_bundle(path, plain)
    header = read_header(path)
    assert header.metadata["format"] == "loopanimate/1" and "fast" not in header.metadata["config"]
    assert bundle_info(path).few_steps == 0 and bundle_info(path).config.defaults.fast is None


def test_a_bundle_with_them_has_a_format_that_earlier_versions_refuse(
    distilled: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "fast.safetensors"
    write_bundle(path, distilled)
    assert read_header(path).metadata["format"] == "loopanimate/2"


def test_the_changed_network_is_the_merged_one_and_shares_the_rest(distilled: Bundle) -> None:
    before = {name: p.clone() for name, p in distilled.unet.named_parameters()}
    fast = distilled.few_step_unet()
    assert all(torch.equal(p, before[name]) for name, p in distilled.unet.named_parameters())
    own = dict(distilled.unet.named_parameters())
    changed = {n for n, p in fast.named_parameters() if p is not own[n]}
    linear = {f"{n}.weight" for n, m in fast.named_modules() if isinstance(m, nn.Linear)}
    assert changed == {*linear, "conv_in.bias"}

    expected = build_toy_bundle().unet
    merge_lora(expected, low_rank(distilled))
    with torch.no_grad():
        expected.conv_in.bias.fill_(1.0)
    rng = torch.Generator().manual_seed(1)
    z_c, image, text = (
        torch.randn(s, generator=rng) for s in ((1, 9, 3, 8, 8), (1, 1, 16), (1, 5, 16))
    )
    ours, theirs = (net(z_c, torch.tensor(500), image, text) for net in (fast, expected))
    assert_close(
        ours, theirs, depth=8 * NETWORK
    )  # one adds the update to the weight, one to the output


def test_only_the_preset_fast_uses_them(plain: Bundle, distilled: Bundle) -> None:
    picture = torch.rand(64, 64, 3, generator=torch.Generator().manual_seed(0))

    def loop(bundle: Bundle, **settings: object) -> Tensor:
        return LoopAnimatePipeline(bundle)(picture, "a", seed=1, mask="none", **settings).latents  # type: ignore[arg-type]

    chosen = {"scheduler": "lcm", "steps": 2, "guidance": 1.0}
    fast = loop(distilled, preset="fast")
    assert_different(fast, loop(distilled, **chosen))
    assert torch.equal(loop(distilled, **chosen), loop(plain, **chosen))
    own = dataclasses.replace(plain, unet=distilled.few_step_unet())
    assert_close(fast, loop(own, **chosen), depth=NETWORK)


def test_settings_of_fast(plain: Bundle, distilled: Bundle) -> None:
    ours = resolve_settings(distilled.config, preset="fast")
    assert ours.few_steps and (ours.scheduler, ours.steps, ours.guidance) == ("lcm", 2, 1.0)
    mine = resolve_settings(distilled.config, preset="fast", steps=6)
    assert mine.few_steps and mine.steps == 6
    assert not resolve_settings(distilled.config).few_steps
    without = resolve_settings(plain.config, preset="fast")
    assert not without.few_steps and without.steps == PRESETS["fast"]["steps"]


def test_adding_them_to_a_file_changes_nothing_else(
    plain: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, target = tmp_path / "base.safetensors", tmp_path / "fast.safetensors"
    write_bundle(base, plain, title="Mine", author="Me")
    tensors = few_step_tensors(low_rank(plain))
    add_few_steps(base, target, tensors, FAST, {"made by": "a test"})
    add_few_steps(target, target, tensors, FAST, {"made by": "a test"})  # replaces its own
    old, new = load_file(base), load_file(target)
    assert all(torch.equal(new[name], tensor) for name, tensor in old.items())
    assert len(new) == len(old) + len(tensors)
    info = bundle_info(target)
    assert (info.metadata["modelspec.title"], info.config.defaults.fast) == ("Mine", FAST)
    assert loopanimate(["info", str(target)]) == 0
    assert "lcm, 2 steps, guidance 1, with few-step weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.update({"nothing": torch.ones(2)}),
            "unknown tensor",
        ),
        (lambda t: t.update({"conv_in.bias": torch.ones(3)}), "must have shape"),
        (lambda t: t.pop(next(n for n in t if n.endswith("lora_up.weight"))), "has no tensor"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    distilled: Bundle, tmp_path: Path, change, message: str
) -> None:
    change(distilled.few_steps)
    with pytest.raises(LoopAnimateError, match=message):
        write_bundle(tmp_path / "x.safetensors", distilled)
