"""Recipes end to end: from a local hub to a loop, and into ComfyUI's folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_hub import Hub, serve, served
from moving_picture import disc
from networks import Parts, save

from loopanimate_core import LoopAnimateError, LoopAnimatePipeline
from loopanimate_core.bundle import find_bundle, read_bundle
from loopanimate_core.bundle.components import state_of
from loopanimate_core.cli import main
from loopanimate_core.convert.assemble import PartFiles, assemble
from loopanimate_core.convert.extract import extract
from loopanimate_core.fetch import Recipe, find_recipe, recipes
from loopanimate_core.fetch.place import bundle_path_of, comfyui_models, fetch_bundle, fetch_parts


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Toy networks in the files that the recipes name, by role."""
    import torch

    root, parts = tmp_path_factory.mktemp("weights"), Parts()
    folder = parts.save_folders(root / "folders")
    parts.text_encoder.save_pretrained(folder / "text_encoder")
    parts.adapter.save_pretrained(root / "adapter")
    whole = assemble(PartFiles(folder, root / "adapter"), conv_in_init="random")
    for layout in ("checkpoint", "pia", "motion_adapter", "animatediff"):
        extract(whole, root, layout, dtype=torch.float16)
    pickled = {
        "unet": (parts.unet, "unet.bin"),
        "image_encoder": (parts.image_encoder, "image_encoder.bin"),
    }
    for network, name in pickled.values():
        torch.save(network.state_dict(), root / name)
    torch.save({"state_dict": parts_motion(root)}, root / "mm.ckpt")
    return {
        "base": (root / "checkpoint.safetensors").read_bytes(),
        "pia": (root / "motion_adapter/diffusion_pytorch_model.safetensors").read_bytes(),
        "motion": (root / "mm.ckpt").read_bytes(),
        "unet": (root / "unet.bin").read_bytes(),
        "image_encoder": (root / "image_encoder.bin").read_bytes(),
    }


def parts_motion(root: Path) -> dict[str, object]:
    """A motion module in AnimateDiff's layout, as its .ckpt has it."""
    from networks import load

    return dict(load(root / "motion_module.safetensors"))


@pytest.fixture
def hub(contents: dict[str, bytes], cache: Path) -> Iterator[Hub]:
    files: dict[str, dict[str, bytes]] = {}
    for name in ("pia", "paper-start"):
        for role, file in find_recipe(name).files.items():
            content = contents["pia" if (name, role) == ("pia", "motion") else role]
            files.setdefault(file.repository, {})[file.file] = content
    with serve(Hub(files)) as running:
        yield running


@pytest.fixture
def pia(hub: Hub) -> Recipe:
    return served(find_recipe("pia"), hub)


def test_pia_is_fetched_and_makes_a_loop(
    hub: Hub, pia: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two documented lines."""
    from loopanimate_core.picture.images import save_picture

    monkeypatch.setattr(recipes, "load_recipes", lambda: {"pia": pia})
    save_picture(disc(), tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    assert main(["fetch", "pia", "--endpoint", hub.url, "--quiet"]) == 0
    assert find_bundle("pia") == bundle_path_of(pia) == tmp_path / "models" / "pia.safetensors"
    quick = ["--steps", "1", "--frames", "5", "--width", "64", "--height", "64", "--detail", "off"]
    made = ["animate", "photo.png", "--bundle", "pia", "--prompt", "a disc", "--motion", "large"]
    assert main([*made, *quick, "-o", "loop.webp", "--quiet"]) == 0
    assert (tmp_path / "loop.webp").stat().st_size > 0
    bundle = read_bundle(bundle_path_of(pia))
    assert bundle.config.conditioning == "pia" and bundle.image_encoder is None
    assert bundle.provenance["recipe"] == "pia"
    assert pia.files["motion"].revision in bundle.provenance["files"]["motion"]


def test_paper_start_is_the_papers_architecture(hub: Hub, tmp_path: Path) -> None:
    recipe = served(find_recipe("paper-start"), hub)
    target = fetch_bundle(recipe, tmp_path / "new" / "start.safetensors", endpoint=hub.url)
    bundle = read_bundle(target)
    assert bundle.config.unet.routing == ("image", "text", "text")
    assert bundle.config.schedule.beta_schedule == "linear"
    assert state_of("image_encoder", bundle.image_encoder)
    assert not bundle.unet.conv_in.weight[:, 4:].any()  # no trained picture condition


def test_a_fetched_recipe_works_offline(hub: Hub, pia: Recipe, tmp_path: Path) -> None:
    fetch_parts(pia, tmp_path / "a", endpoint=hub.url)
    asked = len(hub.requests)
    paths = fetch_parts(pia, tmp_path / "b", endpoint=hub.url, offline=True)
    assert len(hub.requests) == asked and all(path.is_file() for path in paths)


def test_parts_go_into_comfyuis_folders(hub: Hub, pia: Recipe, tmp_path: Path) -> None:
    models = tmp_path / "ComfyUI" / "models"
    models.mkdir(parents=True)
    assert comfyui_models(tmp_path / "ComfyUI") == comfyui_models(models) == models
    paths = fetch_parts(pia, models, endpoint=hub.url, quiet=True)
    assert [p.relative_to(models).parent.name for p in paths] == [
        "checkpoints",
        "animatediff_models",
    ]
    assert assemble(PartFiles(*paths), conditioning="pia").config.conditioning == "pia"
    if hasattr(os, "link"):
        assert paths[0].stat().st_nlink > 1  # not on the disk twice
    fetched = len(hub.gets())
    assert fetch_parts(pia, models, endpoint=hub.url) == paths and len(hub.gets()) == fetched
    paths[1].unlink()
    paths[1].write_bytes(b"something else")
    with pytest.raises(LoopAnimateError, match="is another file than"):
        fetch_parts(pia, models, endpoint=hub.url)


def test_nothing_is_left_of_a_fetch_that_fails(hub: Hub, pia: Recipe, tmp_path: Path) -> None:
    hub.gated.add(pia.files["motion"].repository)
    with pytest.raises(LoopAnimateError, match="accept its terms"):
        fetch_bundle(pia, tmp_path / "models" / "pia.safetensors", endpoint=hub.url)
    assert not list((tmp_path / "models").iterdir())


def test_a_file_of_another_kind_is_named(hub: Hub, tmp_path: Path) -> None:
    file = find_recipe("pia").files["motion"]
    save({}, tmp_path / "empty.safetensors")
    hub.files[file.repository][file.file] = (tmp_path / "empty.safetensors").read_bytes()
    recipe = served(find_recipe("pia"), hub)
    with pytest.raises(LoopAnimateError, match="unknown layout"):
        fetch_bundle(recipe, tmp_path / "pia.safetensors", endpoint=hub.url)


def test_mistakes_on_the_command_line(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, said in (
        (["fetch", "sora"], "recipe must be one of pia, paper-start"),
        (["fetch", "lcm-lora"], "makes no model; --comfyui FOLDER says"),
        (["fetch", "lcm-lora", "--comfyui", str(tmp_path)], "is not a ComfyUI folder"),
        (["info", "unfetched"], "`loopanimate fetch` lists the models"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1


def test_a_pipeline_opens_a_fetched_model_by_name(
    cache: Path, tmp_path: Path, toy_bundle_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.safetensors").write_bytes(toy_bundle_path.read_bytes())
    assert LoopAnimatePipeline.from_bundle("mine").bundle.config.width_px == 64
