"""A batch on a real ComfyUI server that is killed while it runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from comfy_server import PACK, ComfyServer, free_port
from PIL import Image

from loopanimate_core.batch import (
    Batch,
    BatchEvent,
    BatchState,
    ComfyClient,
    list_pictures,
    read_workflow,
)
from loopanimate_core.cli import main
from loopanimate_core.errors import LoopAnimateError

FRAMES = 7


@pytest.fixture
def start(comfyui: Path, tmp_path: Path) -> Iterator[Callable[[], ComfyServer]]:
    """Starts a separate server, and after a kill starts it again on the same port and folders."""
    port, started = free_port(), []

    def start() -> ComfyServer:
        started.append(ComfyServer.start(comfyui, tmp_path / "comfy", port=port))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def make_pictures(folder: Path) -> None:
    """20 pictures, 3 of them broken: truncated, not a picture, too small."""
    folder.mkdir()
    samples = sorted((PACK / "loopanimate_core/data/pictures").glob("*.png"))
    for number in range(20):
        shutil.copy(samples[number % len(samples)], folder / f"picture {number:02}.png")
    cut = folder / "picture 03.png"
    cut.write_bytes(cut.read_bytes()[:5000])
    (folder / "picture 08.png").write_text("no picture")
    Image.new("RGB", (8, 8)).save(folder / "picture 15.png")


def quick_workflow(path: Path) -> Path:
    """The basic workflow with the fewest frames and steps."""
    graph = json.loads((PACK / "workflows/api/loopanimate_basic_api.json").read_text())
    changes = {
        "LoopAnimate_BuildLoopConditions": {"width": 64, "height": 64, "frames": FRAMES},
        "LoopAnimate_LoopSampler": {"steps": 1, "cfg": 1.0},
        "LoopAnimate_SaveLoop": {"format": "webp"},
        "LoopAnimate_SalientMask": {"grow_px": 1},
    }
    for node in graph.values():
        node["inputs"] |= changes.get(node["class_type"], {})
        if (
            node["class_type"] == "LoopAnimate_LoopCheck"
        ):  # so little sampling moves nothing to transfer
            (decode,) = (k for k, other in graph.items() if other["class_type"] == "VAEDecode")
            node["inputs"] |= {"images": [decode, 0], "fps": 8}
        if node["class_type"] == "LoopAnimate_SaveLoop":
            node["inputs"]["fps"] = 8
    path.write_text(json.dumps(graph))
    return path


def test_killed_server_loses_no_loop_and_repeats_none(
    start: Callable[[], ComfyServer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out, state_path = tmp_path / "pictures", tmp_path / "loops", tmp_path / "state.sqlite"
    make_pictures(folder)
    workflow_path = quick_workflow(tmp_path / "workflow_api.json")
    workflow, server = read_workflow(workflow_path), start()
    done = 0

    def kill_after_six(event: BatchEvent) -> None:
        nonlocal done
        done += event.kind == "done"
        if done == 6:
            server.kill()

    state = BatchState(state_path, workflow.job(None))
    clients = [ComfyClient(server.url)]
    batch = Batch(
        workflow, list_pictures(folder), clients, state, out=out, wait_s=0.5, listen=kill_after_six
    )
    with pytest.raises(LoopAnimateError, match="no server is left"):
        batch.run()
    state.close()
    assert 6 <= len(list(out.iterdir())) < 17

    server = start()
    command = ["batch", str(folder), "--workflow", str(workflow_path), "--server", server.url]
    assert main([*command, "--out", str(out), "--state", str(state_path), "--quiet"]) == 1
    shown = capsys.readouterr().out
    assert "17 of 20 pictures have a loop, failed:" in shown
    assert [line.split(":")[0] for line in shown.splitlines()[-3:]] == [
        f"  picture {number}.png" for number in ("03", "08", "15")
    ]
    broken = (3, 8, 15)
    expected = [f"picture {number:02}.webp" for number in range(20) if number not in broken]
    assert sorted(path.name for path in out.iterdir()) == expected
    on_server = list((tmp_path / "comfy/output/loopanimate").iterdir())
    assert len(on_server) == 17, sorted(path.name for path in on_server)
    for path in [*out.iterdir(), *on_server]:
        with Image.open(path) as loop:
            assert getattr(loop, "n_frames", 1) == FRAMES - 1
            loop.load()


def test_missing_node_is_reported_before_anything_is_posted(
    comfy: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = tmp_path / "pictures", quick_workflow(tmp_path / "workflow_api.json")
    make_pictures(folder)
    graph = json.loads(path.read_text())
    graph["99"] = {"class_type": "NodeOfAnotherPack", "inputs": {}}
    path.write_text(json.dumps(graph))
    assert main(["batch", str(folder), "--workflow", str(path), "--server", comfy.url]) == 2
    assert "does not have the nodes NodeOfAnotherPack" in capsys.readouterr().err


def test_comfyui_validation_errors_are_reported(
    comfy: ComfyServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = tmp_path / "pictures", quick_workflow(tmp_path / "workflow_api.json")
    make_pictures(folder)
    graph = json.loads(path.read_text())
    (sampler,) = [n for n in graph.values() if n["class_type"] == "LoopAnimate_LoopSampler"]
    sampler["inputs"]["steps"] = -5
    path.write_text(json.dumps(graph))
    assert main(["batch", str(folder), "--workflow", str(path), "--server", comfy.url]) == 2
    said = capsys.readouterr().err
    assert "rejects the workflow: LoopAnimate_LoopSampler" in said
    assert "steps" in said
