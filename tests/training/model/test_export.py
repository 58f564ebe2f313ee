"""What a run gives away: bundles, deltas to their base, LoRAs; each read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from closeness import assert_close
from safetensors.torch import load_file

from loopanimate_core.bundle import bundle_info, read_bundle
from loopanimate_core.bundle.delta import apply_delta, delta_info, is_delta, weights_sha256
from loopanimate_core.bundle.lora import merge_lora, read_lora
from loopanimate_core.cli import main as loopanimate
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_training.config import RunConfig
from loopanimate_training.loop import train
from loopanimate_training.model.export import (
    changed_tensors,
    export_bundle,
    export_delta,
    export_lora,
)
from loopanimate_training.model.weights import trained_in_unet

pytestmark = pytest.mark.numeric

MakeRun = Callable[..., RunConfig]


def samples(bundle_path: Path) -> torch.Tensor:
    pipeline = LoopAnimatePipeline(read_bundle(bundle_path))
    return pipeline(torch.rand(40, 40, 3), "a square", mask="none", seed=0).frames


def test_a_delta_on_its_base_is_the_bundle(
    make_run: MakeRun, tmp_path: Path, toy_bundle_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = make_run(2, out=tmp_path / "stage2", steps=1, **{"batch.size": 1})
    train(second)
    third = make_run(
        3, out=tmp_path / "stage3", steps=1, **{"batch.size": 1, "model.start": second.out}
    )
    train(third)
    base, whole, delta, made = (
        tmp_path / f"{n}.safetensors" for n in ("base", "whole", "d", "made")
    )
    export_bundle(second.out, base)
    export_bundle(third.out, whole)
    assert export_delta(third.out, delta, base) == 1

    assert is_delta(delta) and not is_delta(base)
    info = delta_info(delta)
    assert info.base_name == "base.safetensors" and info.config.frames == (15, 21, 35)
    assert all("conv_in" in n or "motion_modules" in n for n in load_file(delta))
    apply_delta(delta, base, made)
    ours, theirs = load_file(made), load_file(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)
    assert bundle_info(made).config == bundle_info(whole).config
    assert weights_sha256(made) == weights_sha256(whole)
    assert samples(made).isfinite().all()

    with pytest.raises(LoopAnimateError, match="does not have the weights that this delta"):
        apply_delta(delta, toy_bundle_path, tmp_path / "wrong.safetensors")
    with pytest.raises(LoopAnimateError, match="did not start from"):
        export_delta(third.out, tmp_path / "no.safetensors", toy_bundle_path)
    with pytest.raises(LoopAnimateError, match="is a delta"):
        bundle_info(delta)
    assert loopanimate(["info", str(delta)]) == 0
    assert "base.safetensors, SHA-256 of its weights" in capsys.readouterr().out
    again = tmp_path / "again.safetensors"
    words = ["convert", "apply", str(delta), "--base", str(base), "-o", str(again)]
    assert loopanimate(words) == 0 and again.read_bytes() == made.read_bytes()


def test_a_lora_run_exports_a_lora_and_the_same_as_a_bundle(
    make_run: MakeRun, tmp_path: Path, toy_bundle_path: Path
) -> None:
    config = make_run(
        "1-lora", steps=2, **{"model.lora.rank": 2, "batch.size": 1, "optimizer.lr": 0.05}
    )
    train(config)
    lora, bundle = tmp_path / "style.safetensors", tmp_path / "merged.safetensors"
    export_lora(config.out, lora, torch.float32)
    export_bundle(config.out, bundle, torch.float32)
    start, merged = read_bundle(toy_bundle_path).unet, read_bundle(bundle).unet
    before = {name: p.clone() for name, p in start.named_parameters()}
    merge_lora(start, read_lora(lora, start))
    changed = 0
    for name, p in merged.named_parameters():
        assert_close(start.get_parameter(name), p)
        changed += not torch.equal(before[name], p)
    assert changed > 10
    assert samples(bundle).isfinite().all()

    # a run that goes on from it starts with the merged weights
    again = make_run("1-routing0", out=tmp_path / "next", steps=1, **{"model.start": config.out})
    train(again)
    with pytest.raises(LoopAnimateError, match=r"trained no adapters|trained also"):
        export_lora(again.out, tmp_path / "none.safetensors")


def test_the_size_of_a_full_size_delta() -> None:
    """152 MB in half precision, 303 MB in float32, of a bundle of 3.6 GB."""
    from loopanimate_training.commands.plan import PLACEHOLDERS
    from loopanimate_training.config import resolve

    unet = LoopUNet(LoopUNetConfig(), device="meta")
    trained = trained_in_unet(unet, resolve(3, None, [], PLACEHOLDERS).model)
    parameters = sum(p.numel() for p in trained.values())
    assert round(2 * parameters / 1e6) == 152 and round(4 * parameters / 1e6) == 303
    names = changed_tensors(f"unet.{name}" for name in trained)
    assert set(names) == {f"unet.{name}" for name in trained}
