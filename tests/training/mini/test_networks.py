"""The mini's VAE, vocabulary and encoders, and the command that builds the bundle."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from closeness import NETWORK, assert_close
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from loopanimate_core.bundle import read_bundle
from loopanimate_core.encoders.tokenizer import END, START, build_tokenizer
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNetConfig
from loopanimate_core.settings import FewSteps, SamplingDefaults
from loopanimate_training.config import merge, resolve
from loopanimate_training.data.stickers.clips import DrawnClips
from loopanimate_training.data.stickers.emoji import EmojiCache
from loopanimate_training.data.stickers.motion import SPEEDS, STRENGTHS, VERBS
from loopanimate_training.mini import vae_training
from loopanimate_training.mini.build import PRESETS, PRESETS_FOLDER, Build, Preset
from loopanimate_training.mini.encoders import learn_vocabulary
from loopanimate_training.mini.vae import (
    CropPhase,
    VaeRecipe,
    build_vae,
    normalise_latents,
    reconstruction_loss,
    schedule,
    spread_penalty,
)
from loopanimate_training.mini.vae_training import FrameBatches, VaeTrainer

pytestmark = pytest.mark.numeric

TOY_VAE = VaeRecipe(
    size_px=32,
    channels=8,
    encoder_blocks=(0, 1, 1, 1),
    decoder_blocks=(1, 1, 1, 1),
    joint=(CropPhase(steps=4, crop_px=16, batch=8), CropPhase(steps=3, crop_px=32, batch=4)),
    decoder=CropPhase(steps=3, crop_px=32, batch=4),
)


def sizes(largest: int) -> st.SearchStrategy[int]:
    return st.integers(1, largest)


# ------------------------------------------------------------------------------------------ VAE
def test_an_untrained_vae_decodes_to_grey_and_its_blocks_are_the_identity() -> None:
    vae = build_vae(TOY_VAE)
    picture = vae.decoder(torch.randn(2, 4, 4, 4)) * 0.5 + 0.5
    assert (picture - 0.5).abs().mean() < 0.2
    block = vae.encoder.layers[2]
    features = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(block(features), features.relu())


def test_the_loss_is_zero_only_for_the_target() -> None:
    truth = torch.rand(2, 3, 16, 16)
    assert reconstruction_loss(truth, truth) == 0.0
    far, near = (reconstruction_loss(truth + error, truth) for error in (0.2, 0.1))
    assert far > 2.0 * near > 0.0


def test_normalising_standardises_latents_and_adapts_the_decoder() -> None:
    vae = build_vae(TOY_VAE)
    nn.init.constant_(vae.encoder.layers[-1].bias, 0.3)
    pictures = torch.rand(32, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = vae.encoder(pictures * 2 - 1)
        fed = vae.decoder.layers[0](before)
        normalise_latents(vae, pictures)
        after = vae.encoder(pictures * 2 - 1)
        fed_after = vae.decoder.layers[0](after)
    assert spread_penalty(before) > 1e-3
    assert spread_penalty(after) < 1e-6
    inside = (..., slice(1, -1), slice(1, -1))  # padding changes the border
    assert_close(fed_after[inside], fed[inside], depth=NETWORK)


def test_batches_are_numbered_and_in_order(sticker_cache: EmojiCache) -> None:
    batches = FrameBatches(DrawnClips(sticker_cache, "train", 32, 32), workers=3)
    sizes = [(16, 6), (16, 6), (32, 2), (32, 2), (32, 2), (32, 2)]
    stream = list(batches.stream(7, sizes))
    assert [tuple(batch.shape) for batch in stream[:3]] == [(6, 3, 16, 16)] * 2 + [(2, 3, 32, 32)]
    for number, (batch, size) in enumerate(zip(stream, sizes, strict=True), 7):
        assert torch.equal(batch, batches.batch(number, *size))
        assert batch.min() >= 0.0 and batch.max() <= 1.0 + 1e-6
    assert not torch.equal(stream[0], stream[1])


@given(st.lists(st.builds(CropPhase, sizes(9), sizes(64), sizes(8)), min_size=1, max_size=4))
def test_the_schedule_counts_every_step_and_pixel(phases: list[CropPhase]) -> None:
    steps = list(schedule(tuple(phases)))
    assert len(steps) == sum(phase.steps for phase in phases)
    total = sum(phase.pixels for phase in phases)
    seen = 0
    for progress, crop_px, batch in steps:
        assert progress == pytest.approx(seen / total)
        seen += batch * crop_px**2
    assert seen == total
    assert list(schedule(tuple(phases), first=len(steps) // 2)) == steps[len(steps) // 2 :]


def test_after_freezing_only_the_decoder_changes(sticker_cache: EmojiCache, tmp_path: Path) -> None:
    trainer = VaeTrainer(sticker_cache, tmp_path, TOY_VAE)
    trainer.run_joint()
    resumed = VaeTrainer(sticker_cache, tmp_path, TOY_VAE)
    assert (resumed.phase, resumed.step, trainer.step) == ("decoder", 7, 7)
    resumed.run_decoder()
    assert resumed.step == 10
    frozen, final = (
        AutoencoderTiny.from_pretrained(tmp_path / name).state_dict()
        for name in ("frozen", "final")
    )
    changed = {name.split(".")[0] for name in frozen if not torch.equal(frozen[name], final[name])}
    assert changed == {"decoder"}


def test_a_resumed_training_gives_the_same_vae(
    sticker_cache: EmojiCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = VaeTrainer(sticker_cache, tmp_path / "whole", TOY_VAE)
    whole.run_joint()
    whole.run_decoder()

    monkeypatch.setattr(vae_training, "SAVE_EVERY_STEPS", 2)
    take_step = VaeTrainer._step

    def step_until(last: int) -> None:
        def step(self: VaeTrainer, *arguments: Any) -> float:
            if self.step == last:
                raise KeyboardInterrupt
            return take_step(self, *arguments)

        monkeypatch.setattr(VaeTrainer, "_step", step)

    for last in (5, 9, 99):
        step_until(last)
        stopped = VaeTrainer(sticker_cache, tmp_path / "stopped", TOY_VAE)
        with suppress(KeyboardInterrupt):
            stopped.run_joint()
            stopped.run_decoder()
    for name, weights in whole.vae.state_dict().items():
        torch.testing.assert_close(stopped.vae.state_dict()[name], weights)


# ----------------------------------------------------------------------------------- vocabulary
@pytest.fixture(scope="module")
def vocabulary() -> dict[str, Any]:
    return learn_vocabulary(["dog face", "cat face", "birthday cake", "grinning face"] * 3)


def test_every_motion_word_is_one_token(vocabulary: dict[str, Any]) -> None:
    tokenizer = build_tokenizer(vocabulary)
    words = " ".join([*VERBS, *SPEEDS, *STRENGTHS]).split()
    for word in words:
        assert len(tokenizer.ids(word)) == 3, word  # with start and end


def test_ids_are_in_the_order_of_clip(vocabulary: dict[str, Any]) -> None:
    vocab, merges = vocabulary["vocab"], vocabulary["merges"]
    assert sorted(vocab.values()) == list(range(len(vocab)))
    assert len(vocab) == 512 + len(merges) + 2
    assert vocab[START] == len(vocab) - 2 and vocab[END] == len(vocab) - 1


def test_any_text_survives_the_tokenizer(vocabulary: dict[str, Any]) -> None:
    tokenizer = build_tokenizer(vocabulary)
    for text in ("a dog face bobbing up and down slowly", "xylophone 4 café 日本 🐕"):
        ids = tokenizer.ids(text)
        assert (ids[0], ids[-1]) == (vocabulary["vocab"][START], vocabulary["vocab"][END])
        assert tokenizer.decode(ids) == text


# ---------------------------------------------------------------------------------------- build
@pytest.mark.parametrize(("preset", "stage"), list(itertools.product(PRESETS, [1, 2, 3, 4])))
def test_presets_are_valid_settings_for_each_stage(preset: str, stage: int) -> None:
    file = PRESETS_FOLDER / f"{preset}_stage{stage}.yaml"
    run = resolve(stage, file, ["out=x", "model.start=y", "data.path=z"])
    assert run.clip.f == {1: 8, 2: 11, 3: 18, 4: 18}[stage]
    assert run.clip.height_px == run.clip.width_px == PRESETS[preset].size_px
    assert run.clip.span_frames <= 52


def test_an_unknown_preset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match="cpu, gpu"):
        Build(tmp_path, "tpu")


def test_a_download_without_its_client_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoopAnimateError, match=r"downloading .* needs"):
        Build(tmp_path / "work", "cpu").data()


def put_pictures(work: Path, sticker_cache: EmojiCache, photographs: Path) -> None:
    """What the step `data` makes of packages, so that nothing is downloaded."""
    shutil.copytree(sticker_cache.folder, work / "data")
    for source in sorted(photographs.rglob("*.png"))[:5]:
        target = work / "photographs" / "photographs" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    (work / "photographs" / "manifest.json").write_text("[]")


def test_one_command_builds_a_bundle_and_skips_what_is_done(
    sticker_cache: EmojiCache, photographs: Path, tmp_path: Path
) -> None:
    unet = LoopUNetConfig(
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        cross_attention_dim=128,
        num_attention_heads=2,
        motion_num_attention_heads=2,
        norm_num_groups=4,
    )
    preset = Preset(
        "toy",
        32,
        unet,
        TOY_VAE,
        shapes_px=((32, 32),),
        encoder_steps=3,
        folder=tmp_path,
        defaults=SamplingDefaults(steps=2, guidance=2.0, frames=15),
    )
    for stage in (1, 2, 3, 4):
        settings = yaml.safe_load((PRESETS_FOLDER / f"cpu_stage{stage}.yaml").read_text())
        toy = {
            "steps": 2,
            "clip": {"height_px": 32, "width_px": 32},
            "data": {"clips": 3},
            "batch": {"size": 1},
        }
        (tmp_path / f"toy_stage{stage}.yaml").write_text(yaml.safe_dump(merge(settings, toy)))
    put_pictures(tmp_path / "work", sticker_cache, photographs)
    build = Build(tmp_path / "work", preset)
    build.run()
    bundle = read_bundle(build.work / "mini.safetensors")
    assert bundle.config.unet == unet
    longest = max(bundle.config.frames)  # frames of the last stage
    assert bundle.config.defaults == dataclasses.replace(
        preset.defaults, frames=longest, fast=FewSteps()
    )
    assert bundle.few_steps and bundle.provenance["few_steps"]["stage"] == 4
    assert bundle.config.frames == (15, 21, 35)
    assert [run["stage"] for run in bundle.provenance["training"]] == [1, 2, 3]
    final = AutoencoderTiny.from_pretrained(build.work / "vae" / "final").state_dict()
    for name, weights in bundle.vae.state_dict().items():  # type: ignore[attr-defined]
        assert_close(weights, final[name], dtype=torch.float16)  # the bundle stores float16

    kept = ["data/cutouts/cutouts.json", "vae/state.pt", "tokenizer.json", "start.safetensors"]
    before = [(build.work / name).stat().st_mtime_ns for name in kept]
    build.run("stage1")
    assert [(build.work / name).stat().st_mtime_ns for name in kept] == before
