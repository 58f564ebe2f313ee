"""Reading a workflow for a batch, and changing it for each picture."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from loopanimate_core.batch import BatchWorkflow, list_pictures, read_workflow
from loopanimate_core.batch.pictures import upload_of
from loopanimate_core.errors import LoopAnimateError

LOADER = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
SAVER = {
    "class_type": "LoopAnimate_SaveLoop",
    "inputs": {"filename_prefix": "la/loop", "format": "mp4"},
}


def read(tmp_path: Path, graph: object, loader: str | None = None) -> BatchWorkflow:
    path = tmp_path / "w.json"
    path.write_text(json.dumps(graph))
    return read_workflow(path, loader)


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        ({"nodes": [], "links": []}, "Export \\(API\\)"),
        ({}, "not a workflow in API format"),
        ([1], "not a workflow in API format"),
        ({"1": {"inputs": {}}}, "not a workflow in API format"),
        ({"2": SAVER}, "no node that loads a picture"),
        ({"1": LOADER}, "needs Save Loop"),
        ({"1": LOADER, "2": LOADER, "3": SAVER}, "--picture-node: 1 \\(LoadImage\\), 2 "),
    ],
)
def test_invalid_workflows_are_rejected(tmp_path: Path, graph: object, reason: str) -> None:
    with pytest.raises(LoopAnimateError, match=reason):
        read(tmp_path, graph)


def test_files_that_are_not_a_workflow(tmp_path: Path) -> None:
    (tmp_path / "text.json").write_text("hello")
    with pytest.raises(LoopAnimateError, match="not JSON"):
        read_workflow(tmp_path / "text.json")
    with pytest.raises(LoopAnimateError, match="there is no workflow"):
        read_workflow(tmp_path / "nothing.json")


def test_the_picture_node_can_be_chosen(tmp_path: Path) -> None:
    graph = {"1": LOADER, "2": LOADER, "3": SAVER}
    assert read(tmp_path, graph, "2").loader == "2"
    with pytest.raises(LoopAnimateError, match="does not load a picture"):
        read(tmp_path, graph, "3")
    # With both loaders, Load Picture From Folder is used, because Load Image may load a mask.
    folder = {"class_type": "LoopAnimate_LoadPictureFromFolder", "inputs": {}}
    assert read(tmp_path, graph | {"8": folder}).loader == "8"


def test_seeds_differ_by_picture_and_node_and_links_stay(tmp_path: Path) -> None:
    sampler: dict[str, Any] = {"class_type": "KSampler", "inputs": {"seed": 1, "model": ["9", 0]}}
    noise = {"class_type": "RandomNoise", "inputs": {"noise_seed": 1}}
    linked = {"class_type": "KSampler", "inputs": {"seed": ["5", 0]}}
    graph = {"1": LOADER, "2": SAVER, "3": sampler, "4": noise, "5": linked}
    workflow, before = read(tmp_path, graph), copy.deepcopy(graph)

    def seeds(key: str, seed: int | None = None) -> list[Any]:
        fitted = workflow.fit("x/a.png", "a", key, seed)
        return [fitted["3"]["inputs"]["seed"], fitted["4"]["inputs"]["noise_seed"]]

    assert seeds("a") == seeds("a")
    assert len({*seeds("a"), *seeds("b")}) == 4
    assert seeds("a", 5) == [5, 5]
    assert workflow.fit("", "", "")["5"] == linked
    assert workflow.graph == before


def test_other_saving_nodes_get_the_name(tmp_path: Path) -> None:
    image = {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}
    fitted = read(tmp_path, {"1": LOADER, "2": SAVER, "3": image}).fit("", "tom", "tom.png")
    assert fitted["2"]["inputs"]["picture_name"] == "tom"
    assert fitted["3"]["inputs"]["filename_prefix"] == "x_tom"


def test_job_id_depends_only_on_the_result(tmp_path: Path) -> None:
    job = read(tmp_path, {"1": LOADER, "2": SAVER}).job(None)
    other = LOADER | {"inputs": {"image": "other.png"}, "_meta": {"title": "renamed"}}
    assert read(tmp_path, {"1": other, "2": SAVER}).job(None) == job
    webp = SAVER | {"inputs": SAVER["inputs"] | {"format": "webp"}}
    assert read(tmp_path, {"1": LOADER, "2": webp}).job(None) != job


@pytest.mark.parametrize(
    ("inputs", "saved"),
    [
        ({}, "la/loop_tom_00002_.mp4"),
        ({"format": "apng"}, "la/loop_tom_00002_.png"),
        ({"filename_prefix": "%picture_name%/x"}, "tom/x_00002_.mp4"),
        ({"filename_prefix": "%date%/x"}, None),
        ({"format": "png"}, None),
    ],
)
def test_expected_file_of_a_lost_prompt(
    tmp_path: Path, inputs: dict[str, str], saved: str | None
) -> None:
    saver = SAVER | {"inputs": SAVER["inputs"] | inputs}
    file = read(tmp_path, {"1": LOADER, "2": saver}).saved_file("tom", 2)
    assert saved == (file and f"{file.subfolder}/{file.filename}")


def test_folders_of_frames_cannot_be_fetched(tmp_path: Path) -> None:
    saver = SAVER | {"inputs": SAVER["inputs"] | {"format": "png"}}
    with pytest.raises(LoopAnimateError, match="cannot be downloaded"):
        read(tmp_path, {"1": LOADER, "2": saver}).require_fetchable()


# ----------------------------------------------------------------------------------------- pictures
def test_names_are_unique_and_safe(tmp_path: Path) -> None:
    for name in ("cat.png", "Cat.jpg", "a:b.png", "dog10.png", "dog2.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    pictures = list_pictures(tmp_path)
    assert [picture.name for picture in pictures] == ["a_b", "Cat_jpg", "cat_png", "dog2", "dog10"]


def test_a_folder_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match="has no picture files"):
        list_pictures(tmp_path)
    with pytest.raises(LoopAnimateError, match="there is no folder"):
        list_pictures(tmp_path / "x")


def uploaded(tmp_path: Path, on_white: bool = False) -> tuple[str, Image.Image, bytes]:
    (picture,) = list_pictures(tmp_path)
    name, data = upload_of(picture, on_white)
    return name, Image.open(io.BytesIO(data)), data


def test_plain_pictures_are_uploaded_unchanged(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), "red").save(tmp_path / "red [output].jpg")
    name, _, data = uploaded(tmp_path)
    assert name.startswith("red_output_-")
    assert name.endswith(".jpg")
    assert data == (tmp_path / "red [output].jpg").read_bytes()


def test_animations_and_cmyk_pictures_are_converted_to_png(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.webp", save_all=True, append_images=frames[1:], lossless=True)
    name, image, _ = uploaded(tmp_path)
    assert name.endswith(".png")
    assert image.convert("RGB").getpixel((3, 3)) == (255, 0, 0)
    (tmp_path / "two.webp").unlink()
    Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "print.jpg")
    assert uploaded(tmp_path)[1].mode == "RGB"


def test_transparent_parts_are_white_as_in_load_picture_from_folder(tmp_path: Path) -> None:
    image = Image.new("RGBA", (16, 16), (10, 20, 30, 255))
    image.paste((200, 0, 0, 0), (0, 0, 8, 16))
    image.save(tmp_path / "half.png")
    white = uploaded(tmp_path, on_white=True)[1]
    assert white.getpixel((2, 2)) == (255, 255, 255, 0)
    assert white.getpixel((12, 2)) == (10, 20, 30, 255)
    assert uploaded(tmp_path, on_white=False)[2] == (tmp_path / "half.png").read_bytes()
