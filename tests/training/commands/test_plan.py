"""The memory plan compared with the memory of a real step, and the figures in the docs."""

from __future__ import annotations

import dataclasses
import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch.autograd.graph import saved_tensors_hooks
from torch.profiler import ProfilerActivity, profile

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNetConfig
from loopanimate_core.picture.shapes import Shape
from loopanimate_training.commands.plan import (
    PLACEHOLDERS,
    Candidate,
    _advice_for,
    _in_8_bits,
    plan,
)
from loopanimate_training.config import RunConfig, resolve
from loopanimate_training.loop import train
from loopanimate_training.model.fitting import (
    LADDER,
    find_networks,
    fit_line,
    on_one_gpu,
    whole_memory,
    whole_sheet,
    with_settings,
)
from loopanimate_training.model.measuring import measure
from loopanimate_training.model.memory import (
    StepMemory,
    build_network,
    network_inputs,
    run_memory,
    step_memory,
)
from loopanimate_training.model.precision import DTYPES
from loopanimate_training.model.sheet_memory import (
    decoding_bytes,
    encoding_bytes,
    sampling_bytes,
)
from loopanimate_training.setup import open_run
from loopanimate_training.storage.checkpoint import STATE, checkpoints
from loopanimate_training.testing import toy_run

ROOT = Path(__file__).parents[3]

TOLERANCE = 0.1  # both directions: scratch memory depends on the processor
DOCUMENTED = 0.05  # the tensors saved for backward depend on the version of torch
TOY = LoopUNetConfig(
    block_out_channels=(16, 32),
    layers_per_block=1,
    cross_attention_dim=16,
    num_attention_heads=2,
    motion_num_attention_heads=2,
    norm_num_groups=4,
)
CHUNKS = {"model.chunk_frames": 2, "model.chunk_pixels": 16}


def make(stage: int | str, **settings: Any) -> RunConfig:
    return resolve(stage, None, [f"{k}={v}" for k, v in settings.items()], PLACEHOLDERS)


def tiny(config: RunConfig) -> RunConfig:
    """The run with the toy network instead of its own start."""
    sizes = TOY.to_dict() | {"norm_eps": 1}
    return config.model_copy(update={"model": config.model.model_copy(update={"unet": sizes})})


def toy(stage: int | str, **settings: Any) -> RunConfig:
    return make(stage, **{"clip.height_px": 64, "clip.width_px": 64, **settings})


def real_step(config: RunConfig, frames: int) -> tuple[int, int]:
    """Bytes saved by autograd and peak of the allocator, for a step on real tensors."""
    network, inputs = build_network(config, TOY, frames), network_inputs(config, TOY, frames)
    own = {t.untyped_storage().data_ptr() for t in [*network.parameters(), *inputs]}
    saved: dict[int, int] = {}
    kept = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    def forward() -> torch.Tensor:
        dtype = DTYPES.get(config.precision)
        with nullcontext() if dtype is None else torch.autocast("cpu", dtype):
            return network(*inputs).float().square().mean()

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        forward()
    kept.clear()
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        forward().backward()
    now = peak = 0
    assert record.profiler is not None and record.profiler.kineto_results is not None
    events: Any = record.profiler.kineto_results.events()
    for event in events:
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    return sum(saved.values()), peak


@pytest.mark.numeric
@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        (3, {}),
        (1, {"model.gradient_checkpointing": True}),
        (3, {"model.gradient_checkpointing": True, **CHUNKS}),
        ("2-lora", {"model.gradient_checkpointing": True, "precision": "bf16"}),
    ],
    ids=str,
)
def test_prediction_matches_a_real_step(stage: int | str, settings: dict[str, Any]) -> None:
    config = toy(stage, **settings)
    predicted = step_memory(config, TOY, 7)
    saved, peak = real_step(config, 7)
    assert predicted.saved == pytest.approx(saved, rel=TOLERANCE)
    assert predicted.peak == pytest.approx(peak, rel=TOLERANCE)


def test_memory_is_linear_in_the_frames() -> None:
    config = toy(3, **{"model.gradient_checkpointing": True})
    networks = dataclasses.replace(find_networks(config.model), unet=TOY)
    line = fit_line(config, networks, (7, 21))
    assert line.step_at(13).peak == pytest.approx(step_memory(config, TOY, 13).peak, rel=0.01)


def full_size_gb(stage: int, rung: str, frames: int) -> list[float]:
    """Every part of the memory of a run, and their sum."""
    config = with_settings(make(stage), LADDER[rung])
    networks = find_networks(config.model)
    memory = whole_memory(config, networks, step_memory(config, networks.unet, frames))
    return [size / 1e9 for size in (*dataclasses.astuple(memory), memory.total)]


def documented(title: str, row: str) -> list[float]:
    """The figures of a row in the table of docs/training-memory.md whose first cell is `title`."""
    lines = iter((ROOT / "docs" / "training-memory.md").read_text(encoding="utf-8").splitlines())
    assert any(line.startswith(f"| {title} |") for line in lines)  # skips to the title
    found = next(line for line in lines if line.startswith(f"| {row} |"))
    return [float(figure) for figure in found.replace("*", "").strip("| ").split(" | ")[1:]]


def test_training_the_text_encoder_takes_twenty_bytes_per_parameter() -> None:
    config = toy(1)
    networks = dataclasses.replace(find_networks(config.model), unet=TOY)
    both = toy(1, **{"model.train_text_encoder": True})
    nothing = StepMemory(0, 0)
    more = (
        whole_memory(both, networks, nothing).total - whole_memory(config, networks, nothing).total
    )
    assert more == 20 * networks.others["text_encoder"]  # weight, gradient, two moments, average


@pytest.mark.parametrize(
    ("stage", "rung", "frames", "card_gb"),
    [
        (1, "bf16, checkpointing", 15, 24),
        (2, "bf16, checkpointing", 21, 24),
        (3, "bf16, checkpointing", 141, 80),
        (3, "bf16, checkpointing in chunks", 35, 12),
    ],
)
def test_claims_at_full_size(stage: int, rung: str, frames: int, card_gb: float) -> None:
    """512 x 512 pixels, one clip per GPU, 1.5 GB of reserve; same figures as in the docs."""
    sizes = full_size_gb(stage, rung, frames)
    assert sizes[-1] < card_gb
    if frames == 141:
        assert sizes[-1] == pytest.approx(documented("stage 3", rung)[2], rel=DOCUMENTED)
    else:
        title = "35 frames" if stage == 3 else f"stage {stage}, {frames} frames"
        assert sizes == pytest.approx(documented(title, rung), rel=DOCUMENTED)


def test_each_gpu_gets_its_share_of_the_batch() -> None:
    config = toy(1, **{"batch.size": 6, "clip.f": 2})
    assert on_one_gpu(config, 3) == toy(1, **{"batch.size": 2, "clip.f": 2})
    assert "2 clips at a time on a GPU" in plan(tiny(config), [3], processes=3)
    for processes, action in ((4, plan), (0, plan), (4, measure)):
        message = rf"batch.size must be divisible by the number of processes \({processes}\), got 6"
        with pytest.raises(LoopAnimateError, match=message):
            action(config, processes=processes)


def test_plan_prints_every_rung_and_card() -> None:
    settings = {"model.unet": json.dumps(TOY.to_dict() | {"norm_eps": 1}), "clip.f": 3}
    text = plan(toy("3-qk", **settings), [7])
    assert "stage 3-qk" in text and "5 frames    7 frames" in text
    assert all(text.count(f"\n{name}  ") >= 2 for name in LADDER)
    assert " 80 GB: --set precision=no" in text


def test_without_a_cache_the_encoders_and_their_work_count() -> None:
    """Runs keep them in float32, whatever `precision` says."""
    settings = {"precision": "bf16", "data.threads": 3}
    cached, plain = toy(2, **settings), toy(2, **settings, **{"data.cache": "null"})
    networks = dataclasses.replace(find_networks(cached.model), unet=TOY)
    with_cache, without = (whole_memory(one, networks, StepMemory(0, 0)) for one in (cached, plain))
    assert without.weights - with_cache.weights == 4 * sum(networks.others.values())
    assert with_cache.encoding == 0
    assert without.encoding == 3 * encoding_bytes(networks.vae, Shape(64, 64))


def test_runs_keep_their_encoders_in_float32(tmp_path: Path, toy_bundle_path: Path) -> None:
    config = toy_run(tmp_path, toy_bundle_path, precision="bf16")
    encoder = open_run(config, Accelerator(cpu=True), allow_change=False).loader.cache.encoder
    assert encoder.text_encoder is not None
    for network in (encoder.vae, encoder.image_encoder, encoder.text_encoder):
        assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_the_vae_at_full_size() -> None:
    """One frame is encoded at a time, eight are decoded; as in docs/training-memory.md."""
    vae, size = find_networks(make(3).model).vae, Shape(512, 512)
    assert encoding_bytes(vae, size) == pytest.approx(0.68e9, rel=DOCUMENTED)
    assert decoding_bytes(vae, size, 34) == pytest.approx(6.4e9, rel=DOCUMENTED)


def test_a_sheet_has_encoders_and_no_gradients() -> None:
    config = toy(3, **{"clip.f": 3})
    networks = dataclasses.replace(find_networks(config.model), unet=TOY)
    memory = whole_memory(config, networks, StepMemory(0, 10**9))
    drawing = sampling_bytes(config, TOY)
    sheet = whole_sheet(config, networks, memory, drawing)
    decoding = decoding_bytes(networks.vae, Shape(64, 64), 4)
    kept = memory.weights + memory.optimizer + 2 * memory.average + memory.reserve
    assert sheet == kept + 4 * sum(networks.others.values()) + max(drawing, decoding)
    assert 0 < drawing < step_memory(config, TOY, 5).peak


def test_advice_knows_8_bits_and_says_what_is_missing() -> None:
    small = Candidate({"precision": "no"}, int(20e9), int(9e9))
    halved = _in_8_bits(small, int(10e9))
    assert _advice_for(24, [small, halved]) == " 24 GB: --set precision=no"
    line = " 12 GB: --set precision=no --set optimizer.kind=adamw8bit"
    assert _advice_for(12, [small, halved]) == line
    assert "does not fit: 20.0 GB at least; train smaller" in _advice_for(12, [small])
    drawing = dataclasses.replace(halved, sheet=int(15e9))
    assert "15.0 GB at least, most of it for sheets" in _advice_for(12, [drawing])


def test_plan_shows_progress_and_counts_the_smallest_chunks_where_nothing_else_fits(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopanimate_training.commands.plan.GPUS_GB", (1, 80))
    settings = {"model.unet": json.dumps(TOY.to_dict() | {"norm_eps": 1}), "clip.f": 3}
    text = plan(toy(1, **settings), [7], show_progress=True)
    assert "counting" in capsys.readouterr().err
    assert "  1 GB: does not fit: 1.5 GB at least" in text  # the reserve alone
    eight = plan(toy(1, **settings, **{"optimizer.kind": "adamw8bit"}), [7])
    assert "adamw8bit takes" in text and "adamw8bit takes" not in eight


def test_network_sizes_when_the_newest_checkpoint_is_damaged(
    tmp_path: Path, toy_bundle_path: Path
) -> None:
    run = toy_run(tmp_path, toy_bundle_path, steps=2)
    train(run)
    newest, oldest = checkpoints(run.out)[-1], checkpoints(run.out)[0]
    model = run.model.model_copy(update={"start": run.out})
    whole = find_networks(model)
    (newest / STATE).write_text('{"step": 2, "conf')
    assert find_networks(model) == whole
    (oldest / STATE).write_text("")
    with pytest.raises(LoopAnimateError, match=r"none of the 2 checkpoints in .* is complete"):
        find_networks(model)


def test_measured_steps_are_real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda _, backend: compiled.append(backend)
    )  # recorded, but not run: it is slow
    settings = {"device": "cpu", "batch.size": 4, "clip.f": 3, "precision": "bf16"}
    plain, fast = toy(1, **settings), toy(1, **settings, **{"model.compile": "eager"})
    first, head, *rows = measure(tiny(plain), [7], processes=2).splitlines()
    assert first == "CPU" and head.endswith("s/step") and not compiled
    share = tiny(on_one_gpu(plain, 2))
    for row, frames in zip(rows, (5, 7), strict=True):
        count, predicted_gb, taken, reserved, seconds = row.split()
        assert (count, taken, reserved) == (str(frames), "-", "-")
        memory = run_memory(share, TOY, [], step_memory(share, TOY, frames))
        assert predicted_gb == f"{(memory.total - memory.reserve) / 1e9:.2f}"
        assert re.fullmatch(r"\d+\.\d\d", seconds)
    measure(tiny(fast))
    assert compiled and set(compiled) == {"eager"}


def test_mistakes_are_one_sentence() -> None:
    with pytest.raises(LoopAnimateError, match="--frames must be 3 or more, got 2"):
        plan(make(3), [2])
    if not torch.cuda.is_available():
        with pytest.raises(LoopAnimateError, match="needs a CUDA device"):
            measure(make(3))
