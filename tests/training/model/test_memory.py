"""What saves memory changes no number, or says by how little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from closeness import NETWORK, assert_close, assert_close_gradients
from torch import Tensor, nn

from loopanimate_core.bundle import Bundle, read_bundle
from loopanimate_core.encoders.text import encode_prompts
from loopanimate_training.commands.cache import fill_cache
from loopanimate_training.config import LossConfig, ModelConfig, RunConfig
from loopanimate_training.data.batch import Batch
from loopanimate_training.data.clip_encoder import ClipEncoder
from loopanimate_training.loop import validate
from loopanimate_training.model.losses import DiffusionLoss
from loopanimate_training.model.precision import autocast, round_frozen_weights, safe_kernels
from loopanimate_training.model.switches import use_memory_switches
from loopanimate_training.model.weights import trained_parameters
from loopanimate_training.run.log import RunLog
from loopanimate_training.setup import make_loader, make_loss, open_run
from loopanimate_training.testing import toy_run, with_settings

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
Gradients = dict[str, Tensor]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, toy_bundle_path: Path) -> RunConfig:
    folder = tmp_path_factory.mktemp("memory")
    return toy_run(folder, toy_bundle_path, **{"model.train": "[conv_in, temm]"})


@pytest.fixture(scope="module")
def batch(config: RunConfig) -> Batch:
    loader = make_loader(config, read_bundle(config.model.start), Accelerator(cpu=True))
    return loader.batch(0, 0)


def gradients(
    config: RunConfig, batch: Batch, prepare: Callable[[Bundle], None], precision: str = "no"
) -> tuple[Tensor, Gradients]:
    """Loss and gradients of a step of the toy, whose networks `prepare` has changed."""
    bundle = read_bundle(config.model.start)
    parameters = trained_parameters(bundle, config.model)
    prepare(bundle)
    model = DiffusionLoss(bundle.unet, None, bundle.config.schedule, LossConfig())
    with safe_kernels(precision, CPU), autocast(precision, CPU):
        loss = model(batch)
        loss.backward()
    return loss.detach(), {name: p.grad for name, p in parameters.items() if p.grad is not None}


def with_memory_settings(config: RunConfig, **settings: Any) -> Callable[[Bundle], None]:
    model = ModelConfig(start=config.model.start, train=config.model.train, **settings)
    return lambda bundle: use_memory_switches(bundle.unet, model, "no")


def test_recomputing_gives_the_same_gradients(config: RunConfig, batch: Batch) -> None:
    loss, plain = gradients(config, batch, with_memory_settings(config))
    same, again = gradients(
        config, batch, with_memory_settings(config, gradient_checkpointing=True)
    )
    assert_close(same, loss, depth=NETWORK)
    assert_close_gradients(again, plain)


@pytest.mark.parametrize(
    "chunks", [{"chunk_frames": 2}, {"chunk_pixels": 5}, {"chunk_frames": 1, "chunk_pixels": 1}]
)
def test_chunks_change_the_order_of_additions_alone(
    config: RunConfig, batch: Batch, chunks: dict[str, int]
) -> None:
    loss, plain = gradients(config, batch, with_memory_settings(config))
    settings = with_memory_settings(config, gradient_checkpointing=True, **chunks)
    close, again = gradients(config, batch, settings)
    assert_close(close, loss, depth=NETWORK)
    assert_close_gradients(again, plain)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_frozen_weights_kept_rounded_change_nothing(
    config: RunConfig, batch: Batch, precision: str, one_thread: None
) -> None:
    """Bit for bit: autocast rounds the same weights, only later, and calls the same kernels."""

    def shrink(bundle: Bundle) -> None:
        round_frozen_weights(bundle.unet, precision)
        sizes = {p.dtype for p in bundle.unet.parameters() if p.requires_grad}
        small = sum(p.numel() for p in bundle.unet.parameters() if p.dtype != torch.float32)
        frozen = sum(p.numel() for p in bundle.unet.parameters() if not p.requires_grad)
        assert sizes == {torch.float32} and small > 0.9 * frozen

    loss, plain = gradients(config, batch, lambda _: None, precision)
    same, again = gradients(config, batch, shrink, precision)
    assert torch.equal(loss, same) and all(torch.equal(plain[name], again[name]) for name in plain)


def test_encoders_come_when_they_are_needed_and_leave_when_the_cache_is_complete(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_settings(config, data={"cache": str(tmp_path / "cache")})
    moves: list[str] = []
    monkeypatch.setattr(ClipEncoder, "_move", lambda _, device: moves.append(device.type))
    loader = make_loader(config, read_bundle(config.model.start), Accelerator(cpu=True))
    loader.cache.encoder.device = torch.device("cuda")  # where they would go
    with monkeypatch.context() as patch:
        patch.setattr(ClipEncoder, "_encode", encode_on_the_cpu(ClipEncoder._encode))
        windows = {(clip, loader.cache.start_of(clip, w)) for clip in range(3) for w in range(2)}
        for clip, start in windows:
            loader.cache.get(clip, start)
        assert moves == ["cuda"] * len(windows)
        moves.clear()
        for clip, start in [*windows, *windows]:
            loader.cache.get(clip, start)
        assert set(moves) == {"cpu"}  # after as many finds as there are clips, and from then on
        moves.clear()
        with loader.cache.encoder.on_device():  # a sheet is drawn
            for clip, start in windows:
                loader.cache.get(clip, start)
        assert moves == ["cuda"]  # nobody takes them away
        loader.cache.get(*next(iter(windows)))
        assert moves == ["cuda", "cpu"]
        moves.clear()
        loader.cache.path_of(0, 0).unlink()
        loader.cache.get(0, 0)
        assert moves == ["cuda"]


def test_a_sheet_sends_the_encoders_back_to_where_they_were(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"every_steps": 1, "steps": 1, "clips": 1}
    config = with_settings(config, out=str(tmp_path / "run"), validation=settings)
    fill_cache(config)
    config.out.mkdir()
    run = open_run(config, Accelerator(cpu=True), allow_change=False)
    run.loader.batch(0, 0)
    moves: list[str] = []
    monkeypatch.setattr(ClipEncoder, "_move", lambda _, device: moves.append(device.type))
    with RunLog(config.out, 1, 0, None, True) as log:
        validate(run, log)
        assert moves == ["cpu"]  # they were there already
        run.loader.cache.encoder.device = torch.device("cuda")  # where they would go
        validate(run, log)
    assert moves == ["cpu", "cuda", "cpu"] and (config.out / "sheet-00000000.png").exists()


def test_captions_are_encoded_once_and_the_text_encoder_leaves_with_the_others(
    config: RunConfig, tmp_path: Path
) -> None:
    config = with_settings(config, data={"cache": str(tmp_path / "cache")})
    bundle = read_bundle(config.model.start)
    loader = make_loader(config, bundle, Accelerator(cpu=True))
    states = loader.cache.text("a cat")
    with torch.inference_mode():
        plain = encode_prompts(bundle.tokenizer, bundle.text_encoder, ["a cat"])[0]
    assert torch.equal(states, plain.half().float())
    batch, again = loader.batch(0, 0), loader.batch(0, 0)
    assert batch.text.dtype == torch.float32 and torch.equal(batch.text, again.text)
    bundle.text_encoder.to("meta")  # gone: what was kept is all there is
    assert torch.equal(loader.cache.text("a cat"), states)
    loss = make_loss(config, bundle)
    assert loss.text_encoder is None and torch.isfinite(loss(batch))


def test_a_text_encoder_that_trains_reads_tokens_and_stays(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_settings(config, model={"train_text_encoder": True})
    bundle = read_bundle(config.model.start)
    loader = make_loader(config, bundle, Accelerator(cpu=True))
    assert loader.cache.text("a cat").dtype == torch.int64
    moved: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "to", lambda module, device: moved.append(module))
    loader.cache.encoder._move(torch.device("meta"))
    assert moved == [bundle.vae, bundle.image_encoder]


def encode_on_the_cpu(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Encoding for a test machine that has no other device."""

    def wrapped(self: ClipEncoder, *args: Any) -> Any:
        device, self.device = self.device, CPU
        try:
            return encode(self, *args)
        finally:
            self.device = device

    return wrapped


def test_nobody_takes_the_encoders_away_while_they_are_used(config: RunConfig) -> None:
    encoder = make_loader(
        config, read_bundle(config.model.start), Accelerator(cpu=True)
    ).cache.encoder
    moves: list[torch.device] = []
    encoder._move = moves.append  # type: ignore[method-assign]
    with encoder.on_device():
        encoder.offload()
    assert moves == [CPU] and encoder._users == 0
    encoder.offload()
    assert len(moves) == 2
