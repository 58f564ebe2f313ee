"""Derived rows of the stage table: the ablations of Tables 4 and 5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.models.parts import in_part
from loopanimate_training.config import RunConfig, resolve
from loopanimate_training.demo import RECIPES
from loopanimate_training.model.start import open_start
from loopanimate_training.stages import RUNS, parse_run_name, table_rows

NEEDED = ["out=run", "model.start=b.safetensors", "data.source=videos", "data.path=clips"]
MakeRun = Callable[..., RunConfig]


@pytest.mark.parametrize(
    ("name", "millions"),
    [("3-q", 37.9), ("3-qk", 75.8), ("3-qv", 75.8), ("stage3-qkv", 113.7), ("3", 75.8)],
)
def test_rows_of_table_5(name: str, millions: float) -> None:
    config = resolve(name, None, NEEDED)
    network = LoopUNet(LoopUNetConfig(), device="meta")
    trained = sum(
        p.numel()
        for n, p in network.named_parameters()
        if any(in_part(n, part) for part in config.model.train)
    )
    assert round(trained / 1e6, 1) == millions
    assert (config.stage, config.clip.frames, config.optimizer.lr) == (3, 35, 2e-5)


@pytest.mark.parametrize(
    ("index", "routing"),
    list(
        enumerate(
            [
                ("image", "text", "text"),
                ("image", "none", "text"),
                ("text", "text", "text"),
                ("image", "image", "image"),
                ("text", "text", "image"),
            ]
        )
    ),
)
def test_rows_of_table_4_reach_the_network(
    index: int, routing: tuple[str, str, str], make_run: MakeRun
) -> None:
    config = make_run(f"1-routing{index}")
    bundle = open_start(config.model, config.seed)
    assert bundle.unet.config.routing == bundle.config.unet.routing == routing
    assert "cab" in config.model.train and config.clip.mask == "ones"


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_recipes_are_valid_settings(recipe: Path) -> None:
    config = resolve(1, recipe, NEEDED)
    if recipe.stem == "paper":
        assert config.clip.span_frames == 43 and config.precision == "bf16"
    else:
        on_a_gpu_where_there_is_one = recipe.stem.startswith("ablation")
        assert config.device == ("auto" if on_a_gpu_where_there_is_one else "cpu")
        assert config.clip.span_frames == 22


def test_parse_run_name() -> None:
    assert parse_run_name(2) == (2, "") and parse_run_name("stage3-qk") == (3, "qk")
    assert {"1", "3-qkv", "1-routing4", "2-lora"} <= set(RUNS) and "1-qk" not in RUNS
    assert all(name.partition("-")[2] in "\n".join(table_rows()) for name in RUNS)
    with pytest.raises(LoopAnimateError, match="stage is 1-qk; choose one of 1, 2, 3"):
        resolve("1-qk")
