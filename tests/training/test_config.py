"""The stage table, the configuration, and which weights each stage trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loopanimate_core.bundle import read_bundle
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.models.parts import in_part, is_idle, part_of
from loopanimate_training.commands.dry_run import describe_run
from loopanimate_training.config import (
    RunConfig,
    ValidationConfig,
    parse,
    require_same_run,
    resolve,
)
from loopanimate_training.config.describe import describe_config, sections
from loopanimate_training.model.weights import trained_parameters
from loopanimate_training.stages import STAGES

NEEDED = ["out=run", "model.start=b.safetensors", "data.source=videos", "data.path=clips"]
MakeRun = Callable[..., RunConfig]
TEMM = {"temm", "temm.q", "temm.k", "temm.v"}
PARTS_TRAINED = {
    1: {"conv_in", "cab", *TEMM},
    2: {"conv_in", *TEMM},
    3: {"conv_in", "temm.q", "temm.v"},
}


@pytest.mark.parametrize(
    ("stage", "frames", "span", "lr", "steps", "mask", "millions"),
    [
        (1, 15, 43, 2e-4, 200_000, "ones", 659.6),
        (2, 21, 61, 6e-5, 100_000, "object", 417.2),
        (3, 35, 103, 2e-5, 100_000, "object", 75.8),
    ],
)
def test_stages_match_the_paper(
    stage: int, frames: int, span: int, lr: float, steps: int, mask: str, millions: float
) -> None:
    config = resolve(stage, None, NEEDED)
    clip = config.clip
    assert (clip.frames, clip.span_frames, clip.mask) == (frames, span, mask)
    assert (clip.stride, clip.reverse_steps) == (6, (2, 4, 6, 8))
    assert (config.optimizer.lr, config.steps) == (lr, steps)
    assert (clip.height_px, clip.width_px) == (512, 512)
    assert (config.batch.clips, config.loss.drop_turn) == (1, 0.5)

    network = LoopUNet(LoopUNetConfig(), device="meta")
    trained = [
        (name, p.numel())
        for name, p in network.named_parameters()
        if any(in_part(name, part) for part in config.model.train)
    ]
    assert round(sum(size for _, size in trained) / 1e6, 1) == millions
    assert {part_of(name) for name, _ in trained} == PARTS_TRAINED[stage]


@pytest.mark.parametrize("stage", STAGES)
def test_weights_without_effect_do_not_train(
    stage: int, make_run: MakeRun, toy_bundle_path: Path
) -> None:
    bundle = read_bundle(toy_bundle_path)
    trained = trained_parameters(bundle, make_run(stage).model)
    named = {f"unet.{name}": p for name, p in bundle.unet.named_parameters()}
    assert trained
    for name, parameter in named.items():
        assert parameter.requires_grad == (name in trained)
        if is_idle(name.removeprefix("unet."), bundle.unet.config):
            assert name not in trained
    assert not any(p.requires_grad for p in bundle.text_encoder.parameters())


def test_the_file_overrides_the_row_and_set_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("optimizer: {lr: 1e-3}\nseed: 4\nclip: {height_px: 64}\n")
    config = resolve(
        2, file, [*NEEDED, "seed=5", "optimizer.betas=[0.9, 0.95]", "model.train=[all]"]
    )
    assert config.optimizer.lr == 1e-3 and config.optimizer.betas == (0.9, 0.95)
    assert config.seed == 5 and config.clip.f == 11 and config.clip.height_px == 64
    assert config.model.train == ("all",)


def test_numbers_with_an_exponent_are_read_as_numbers(tmp_path: Path) -> None:
    """PyYAML reads `1e-5` as a string, and only some settings convert it to a number."""
    file = tmp_path / "run.yaml"
    for text, value in (("1e-5", 1e-5), ("+2E3", 2e3), ("5.e-1", 0.5), (".5e1", 5.0)):
        file.write_text(f"model: {{unet: {{norm_eps: {text}}}}}\ntitle: {text}.safetensors\n")
        config = resolve(1, file, NEEDED)
        assert config.model.unet == {"norm_eps": value}
        assert config.title == f"{text}.safetensors"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.rate=1", "optimizer.rate: there is no such setting"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("loss.drop_turn=2", "loss.drop_turn"),
        ("clip.reverse_steps=[8]", "no 7 steps out of"),
        ("clip.width_px=500", "multiples of 8"),
        ("clip.shapes=[[512, 512], [680, 380]]", "multiples of 8 pixels, got 680 x 380"),
        ("clip.shapes=[[512, 512], [512, 288]]", "areas may differ by 10%"),
        ("clip.shapes=[[680, 384], [384, 680]]", "width_px x height_px, which is 512 x 512"),
        ("model.train=[everything]", "model.train"),
        ("nonsense", "must look like"),
    ],
)
def test_mistakes_are_one_sentence(override: str, message: str) -> None:
    with pytest.raises(LoopAnimateError, match=message) as caught:
        resolve(1, None, [*NEEDED, override])
    assert "\n" not in str(caught.value)


def test_unknown_stage_and_broken_file(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match="choose one of 1, 2, 3"):
        resolve(5)
    with pytest.raises(LoopAnimateError, match="cannot read"):
        resolve(1, tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(LoopAnimateError, match="not valid YAML"):
        resolve(1, tmp_path / "bad.yaml")


def test_every_setting_has_a_description() -> None:
    text = describe_config()
    for prefix, section in sections():
        assert (section.__doc__ or "").strip().endswith("."), section
        for name, field in section.model_fields.items():
            assert (field.description or "").endswith("."), prefix + name
    for line in (
        "  data.threads: integer > 0 (default 1)",
        "  optimizer.lr: number > 0 (set by --stage)",
    ):
        assert line in text.splitlines()
    assert "loss.drop_turn: number >= 0 <= 1 (default 0.5)" in text
    assert (
        'model.lora.targets: [cab | temm | temm.q | temm.k | temm.v, …] (default ["temm", "cab"])'
        in text
    )


def test_shapes_must_stay_and_earlier_checkpoints_have_none() -> None:
    config = resolve(1, None, NEEDED)
    stored = config.model_dump(mode="json")
    del stored["clip"]["shapes"]
    require_same_run(stored, config)
    shaped = resolve(1, None, [*NEEDED, "clip.shapes=[[512, 512], [680, 384], [384, 680]]"])
    require_same_run(shaped.model_dump(mode="json"), shaped)
    with pytest.raises(
        LoopAnimateError, match=r"a run with clip.shapes = \[\], not \[\[512, 512\]"
    ):
        require_same_run(stored, shaped)


def test_sheets_is_read_as_validation(tmp_path: Path) -> None:
    """The old name of the section, in files, in --set, and in the settings of checkpoints."""
    file = tmp_path / "run.yaml"
    file.write_text("sheets: {every_steps: 10, clips: 2}\n")
    config = resolve(1, file, [*NEEDED, "validation.steps=7", "validation.clips=3"])
    assert config.validation == ValidationConfig(every_steps=10, clips=3, steps=7)
    stored = config.model_dump(mode="json")
    old = {"sheets" if name == "validation" else name: value for name, value in stored.items()}
    assert parse(old) == config
    require_same_run(old, config)


def test_description_names_parts_and_paths(make_run: MakeRun) -> None:
    text = describe_run(make_run(3))
    assert "277,164,295 backward paths" in text and "temm.q" in text and "temm.k" not in text
