"""The extension in a real page: a browser loads a workflow, runs it and inspects it.

`browser/page.mjs` uses the page and records the results; the tests here check them. They share one browser
session. The first is with ComfyUI's own front-end. The extra `page` installs a newer one, which adds two sessions:
with its classic nodes, and with its Vue nodes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comfy_server import PACK, ComfyServer, front_end
from flat_workflow import flat
from PIL import Image

from loopanimate_core.video.read import read_metadata, stream_video

BROWSER = Path(__file__).parent / "browser"
TIMEOUT_S = 1800  # of a page that hangs; alone on a machine a visit takes two minutes
STEPS = 6  # of sampling: enough for several previews
PHOTO = PACK / "docs/images/sources/dandelion.jpg"
PHOTO_PX = (1280, 720)
SUBGRAPHS = tuple(
    f"LoopAnimate {name}"
    for name in (
        "picture to loop in one node",
        "long loop of three motions",
        "wallpapers and sticker",
    )
)

Seen = dict[str, Any]


def _node() -> str:
    """The `node` command, in a version that reads `.js` files as ES modules."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no Node.js found; the page is driven by a script that needs it")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(part) for part in said.strip().lstrip("v").split(".")[:2])
    if version < (20, 19):
        pytest.skip(f"Node.js {said.strip()} is too old to import .js modules, 20.19 is needed")
    return node


def _playwright(node: str) -> str:
    """A node_modules folder with playwright-core; empty if Node finds it by itself."""
    places = [os.environ.get("PLAYWRIGHT_CORE"), "~/comfy/browser/node_modules"]
    for place in filter(None, places):
        if (folder := Path(place).expanduser()).joinpath("playwright-core").is_dir():
            return str(folder)
    code = "require.resolve('playwright-core')"
    if subprocess.run([node, "-e", code], cwd=BROWSER, capture_output=True).returncode:
        pytest.skip(
            "no playwright-core found; set PLAYWRIGHT_CORE to the node_modules that holds it"
        )
    return ""


def _chromium() -> str:
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    pytest.skip("no Chromium found; set CHROMIUM to its path")


def _visit(url: str, *, vue: bool) -> Seen:
    node = _node()
    workflow = PACK / "workflows" / "LoopAnimate picture to loop.json"
    options = {
        "url": url,
        "vue": vue,
        "browser": _chromium(),
        "playwright": _playwright(node),
        "workflow": str(workflow),
        "values": {"steps": STEPS},
        "photo": str(PHOTO),
        "subgraphs": {name: str(PACK / "workflows" / f"{name}.json") for name in SUBGRAPHS},
        "pictures": os.environ.get("LOOPANIMATE_PICTURES"),
    }
    command = [node, str(BROWSER / "page.mjs"), json.dumps(options)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


FRONTEND = front_end()
VISITS = ["classic nodes"]
if FRONTEND:
    VISITS += ["classic nodes, other front-end", "Vue nodes, other front-end"]


@pytest.fixture(scope="module")
def other_front_end(
    comfyui: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], ComfyServer]]:
    """Starts a server with the front-end that the extra `page` installs, once."""
    servers: list[ComfyServer] = []

    def start() -> ComfyServer:
        if not servers:
            arguments = ["--front-end-root", str(FRONTEND)]
            folder = tmp_path_factory.mktemp("page")
            servers.append(ComfyServer.start(comfyui, folder, extra_args=arguments))
        return servers[0]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module", params=VISITS)
def seen(
    request: pytest.FixtureRequest,
    comfy: ComfyServer,
    other_front_end: Callable[[], ComfyServer],
) -> Seen:
    """The results of a visit to the page. (In front-end 1.27, Vue nodes show no panels.)"""
    server = other_front_end() if "other" in request.param else comfy
    results = _visit(server.url, vue=request.param.startswith("Vue"))
    return results | {"output": server.base_dir / "output"}


def test_no_errors_during_the_visit(seen: Seen) -> None:
    assert not seen.get("failure"), seen["failure"]
    assert seen["complaints"] == []


def test_node_shows_a_hint_before_the_first_run(seen: Seen) -> None:
    assert "Run" in seen["before"]["notice"]
    assert seen["before"]["state"] is None


def test_preview_plays_in_the_sampler_and_is_removed(seen: Seen) -> None:
    assert seen["preview"]["words"].startswith("Step ")
    assert f"of {STEPS}" in seen["preview"]["words"]
    assert seen["preview"]["later"] >= STEPS - 1, "the caption must follow the progress"
    assert seen["preview"]["moves"] and seen["preview"]["grew"]
    assert seen["preview"]["other"] == 0, "ComfyUI's own preview must be hidden"
    assert seen["afterPreview"] == {"shows": 0, "sameHeight": True}


def test_verdict_has_text_and_an_icon(seen: Seen) -> None:
    verdict = seen["verdict"]
    words = {"la-passed": "Seamless", "la-failed": "Not seamless"}
    assert verdict["headline"] == words[verdict["state"]]
    assert verdict["icons"] == 1
    assert verdict["bars"] == int(verdict["counter"].split("/")[1])


def test_loop_plays_and_has_keyboard_controls(seen: Seen) -> None:
    frames = seen["verdict"]["bars"]
    assert seen["playing"] and seen["verdict"]["button"] == "Pause"
    assert seen["paused"]["button"] == "Play"
    assert seen["end"]["counter"] == f"{frames}/{frames}"
    assert seen["wrapped"]["counter"] == f"1/{frames}"
    assert seen["again"]["button"] == "Pause"


def test_seam_view_blends_first_and_last_frame(seen: Seen) -> None:
    assert seen["seam"]["comparing"] == "true"
    assert seen["seam"]["badge"]
    assert seen["blends"]
    assert seen["again"]["comparing"] == "false"


def test_new_result_replaces_an_open_seam_view(seen: Seen) -> None:
    assert seen["rerun"]["notice"] == ""
    assert seen["rerun"]["comparing"] == "false"
    assert seen["rerun"]["button"] == "Pause"


def test_reduced_motion_shows_a_still_frame(seen: Seen) -> None:
    assert seen["calm"]["button"] == "Play"
    assert seen["calm"]["counter"].startswith("1/")


def test_clicking_a_bar_shows_its_frame(seen: Seen) -> None:
    frames = seen["verdict"]["bars"]
    first = frames - 1 - (frames - 1) // 2  # the frame of the leftmost bar
    assert seen["picked"]["counter"] == f"{first + 1}/{frames}"


def test_panels_are_not_saved_in_the_workflow(seen: Seen) -> None:
    saved = seen["saved"]
    assert not {"loop", "preview"} & {*saved["checkInputs"], *saved["samplerInputs"]}
    assert len(saved["checkValues"]) == 4  # fps, jump_ratio, frozen_change, on_fail
    assert len(saved["samplerValues"]) == 10  # with control_after_generate
    assert None not in saved["checkValues"] + saved["samplerValues"]


def test_dropping_a_saved_file_restores_the_workflow(seen: Seen) -> None:
    assert seen["dropped"]["nodes"] == seen["loaded"]["nodes"]
    assert seen["dropped"]["links"] == seen["loaded"]["links"]


def test_results_survive_undo_and_panels_follow_their_nodes(seen: Seen) -> None:
    assert seen["undone"] == seen["verdict"]["headline"]
    assert (seen["pasted"], seen["removed"]) == (2, 1)


def test_events_for_unknown_nodes_do_nothing(seen: Seen) -> None:
    assert seen["strangers"] == 0


def test_interrupting_a_run_removes_the_preview(seen: Seen) -> None:
    assert seen["interrupted"]


def test_a_photo_dropped_on_the_basic_template_is_its_picture(seen: Seen) -> None:
    """On its picture, on another node, and on the canvas: each time there is one picture, and it is the photograph."""
    photo = seen["photo"]
    for place in ("onPicture", "onOtherNode", "onCanvas"):
        assert photo[place].startswith("dandelion") and photo[place].endswith(".jpg"), place
        assert "," not in photo[place], "a second Load Image"
    assert not photo["alerts"]


def test_the_second_click_makes_a_loop_of_the_photograph_in_its_own_size(seen: Seen) -> None:
    """Drop, Run: two of the three clicks that an artist may need. The third is for other words."""
    file = seen["wallpaper"]["file"]
    path = seen["output"] / file["subfolder"] / file["filename"]
    pictures, _ = stream_video(path)
    first = next(pictures)
    assert first.shape == (PHOTO_PX[1], PHOTO_PX[0], 3)
    with Image.open(PHOTO) as photo:
        still = np.asarray(photo.convert("RGB"), np.float32)
    assert np.abs(first.astype(np.float32) - still).mean() < 6  # of 255: the encoder's
    assert int(read_metadata(path)["loop_frames"]) == file["frames"] > 8


def test_saved_loops_fill_their_node(seen: Seen) -> None:
    """The loops are 96 pixels wide, so ComfyUI would show stamps."""
    assert set(seen["previews"]) == {"webp", "gif", "apng", "mp4"}
    assert min(seen["previews"].values()) > 0.85, seen["previews"]


def test_pictures_dropped_on_load_picture_from_folder_become_its_folder(
    seen: Seen,
) -> None:
    folder = seen["folder"]["folder"]
    assert folder.startswith("input/dropped ") and seen["folder"]["index"] == 0
    place = seen["output"].parent / folder
    assert {path.name for path in place.iterdir()} == {"dandelion.jpg", "coffee.jpg"}


def test_a_batch_runs_every_picture_and_later_only_what_is_left(seen: Seen) -> None:
    batch = seen["batch"]
    assert batch["all"] == batch["rest"] == "2 of 2 pictures done"
    assert batch["taken"] == [0, 1]
    assert (batch["offered"], batch["later"]) == ("Run the 1 that are left", 1)
    assert batch["buttons"] == 1, "nothing is left"


@pytest.mark.parametrize("name", SUBGRAPHS)
def test_the_page_opens_subgraphs_as_they_were_written(seen: Seen, name: str) -> None:
    """The page sends the nodes inside, connected as the template says, and each part of the chain its own seed."""
    prompt = seen["prompts"][name]
    wanted = flat(json.loads((PACK / "workflows" / f"{name}.json").read_text()))
    nodes = {str(n["id"]): n for n in wanted["nodes"] if n["type"] != "MarkdownNote"}
    assert {k: node["class_type"] for k, node in prompt.items()} == {
        k: node["type"] for k, node in nodes.items()
    }
    for link, source, output, target, slot, _ in wanted["links"]:
        entry = nodes[str(target)]["inputs"][slot]
        assert entry["link"] == link
        assert prompt[str(target)]["inputs"][entry["name"]] == [str(source), output]
    seeds = [n["inputs"]["seed"] for n in prompt.values() if "LoopSampler" in n["class_type"]]
    assert len(set(seeds)) == len(seeds)


def test_notes_on_settings_come_and_go(seen: Seen) -> None:
    said, silent = seen["notes"]
    assert said["words"].startswith(
        "512 x 512 is not a size that this model was trained on (96 x 96)"
    )
    assert said["words"].count("512 x 512") == 1 and said["grew"]
    assert silent == {"words": "", "grew": False}


def test_page_functions() -> None:
    command = [_node(), "--test", str(BROWSER / "logic.test.mjs")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stdout[-4000:]
