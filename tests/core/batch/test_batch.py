"""A batch continues after failures and crashes, and makes no loop twice."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_server import ComfyStandIn, text_of
from PIL import Image
from waiting import HANGS_S

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

GRAPH: dict[str, Any] = {
    "3": {
        "class_type": "LoopAnimate_LoadPictureFromFolder",
        "inputs": {"folder": "input", "index": 4},
    },
    "5": {
        "class_type": "LoopAnimate_LoopSampler",
        "inputs": {"seed": 7, "steps": 2, "image": ["3", 0]},
    },
    "9": {
        "class_type": "LoopAnimate_SaveLoop",
        "inputs": {
            "images": ["5", 0],
            "filename_prefix": "la/loop",
            "format": "mp4",
            "picture_name": ["3", 2],
        },
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures."""
    path = tmp_path / "pictures"
    path.mkdir()
    for number in range(6):
        Image.new("RGB", (20, 20), (40 * number, 90, 90)).save(path / f"p{number}.png")
    return path


def write_graph(tmp_path: Path, graph: dict[str, Any] = GRAPH) -> Path:
    path = tmp_path / "workflow_api.json"
    path.write_text(json.dumps(graph))
    return path


class Run:
    """One run over the folder that opens and closes the state file, as a process does."""

    def __init__(
        self, tmp_path: Path, folder: Path, *servers: ComfyStandIn, **options: Any
    ) -> None:
        self.events: list[BatchEvent] = []
        listen: Callable[[BatchEvent], None] = options.pop("listen", self.events.append)
        workflow = read_workflow(write_graph(tmp_path))
        state = BatchState(tmp_path / "state.sqlite", workflow.job(None))
        clients = [ComfyClient(server.url) for server in servers]
        options = {"poll_s": 0.01, "wait_s": HANGS_S, "out": tmp_path / "loops"} | options
        self.error: BaseException | None = None
        try:
            self.batch = Batch(
                workflow, list_pictures(folder), clients, state, listen=listen, **options
            )
            self.batch.run()
        except (LoopAnimateError, KeyboardInterrupt) as error:
            self.error = error
        finally:
            state.close()

    def count(self, status: str) -> int:
        return sum(record.status == status for record in self.batch.records.values())


def loops(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "loops").iterdir())


ALL = [f"p{number}.mp4" for number in range(6)]


def test_every_picture_gets_its_own_name_and_seed(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    run = Run(tmp_path, folder, server)
    assert run.error is None
    assert loops(tmp_path) == ALL
    seeds = {graph["5"]["inputs"]["seed"] for graph in server.posted}
    assert len(seeds) == 6
    for graph in server.posted:
        stem = graph["9"]["inputs"]["picture_name"]  # the link was replaced by the name
        assert graph["3"]["inputs"]["image"].startswith(f"loopanimate_batch/{stem}-")
    # The fake server writes the picture's name into the file.
    for name in ALL:
        assert text_of((tmp_path / "loops" / name).read_bytes()).startswith(
            f"loopanimate_batch/{name[:2]}-"
        )


def test_a_second_run_posts_nothing_and_a_changed_picture_is_made_again(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    first = Run(tmp_path, folder, server)
    seeds = sorted(graph["5"]["inputs"]["seed"] for graph in server.posted)
    assert Run(tmp_path, folder, server).count("done") == len(server.posted) == 6
    Image.new("RGB", (24, 24), "red").save(folder / "p2.png")
    assert Run(tmp_path, folder, server).error is None
    assert len(server.posted) == 7
    assert "p2_2.mp4" in loops(tmp_path)  # the old loop is not overwritten
    assert server.posted[-1]["5"]["inputs"]["seed"] in seeds
    assert first.count("failed") == 0


def test_broken_pictures_are_not_posted_and_failures_have_the_servers_reason(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    (folder / "p1.png").write_bytes(b"no picture")
    (folder / "p4.png").write_bytes((folder / "p4.png").read_bytes()[:60])
    server.fail_for = "p3"
    run = Run(tmp_path, folder, server)
    reasons = {key: record.reason for key, record in run.batch.records.items() if record.reason}
    assert sorted(reasons) == ["p1.png", "p3.png", "p4.png"]
    assert "not a picture" in reasons["p1.png"]
    assert reasons["p3.png"] == "LoopAnimate_LoopSampler: no such motion"
    assert len(server.posted) == 4
    Run(tmp_path, folder, server)
    assert len(server.posted) == 4  # failures are not retried …
    server.fail_for = ""
    assert (
        Run(tmp_path, folder, server, retry_failed=True).count("failed") == 2
    )  # … unless asked to
    assert loops(tmp_path) == ["p0.mp4", "p2.mp4", "p3.mp4", "p5.mp4"]


@pytest.mark.parametrize("when", ["die_before", "die_after"])
def test_a_restarted_server_makes_every_loop_exactly_once(
    tmp_path: Path, folder: Path, server: ComfyStandIn, when: str
) -> None:
    setattr(server, when, 3)  # die_after: the third loop is saved but not reported

    def listen(event: BatchEvent) -> None:
        if event.kind == "gone":
            threading.Timer(0.2, server.start).start()

    run = Run(tmp_path, folder, server, listen=listen)
    assert run.error is None
    assert run.count("done") == 6
    assert loops(tmp_path) == ALL
    assert len(server.outputs) == 6


def test_a_dead_server_ends_the_run_and_the_next_run_finishes_it(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    server.die_after = 2
    run = Run(tmp_path, folder, server, wait_s=0.1)
    assert isinstance(run.error, LoopAnimateError)
    assert "no server is left" in str(run.error)
    server.start()
    assert Run(tmp_path, folder, server).error is None
    assert loops(tmp_path) == ALL
    assert len(server.outputs) == 6


def test_two_servers_share_and_one_takes_over_from_the_other(
    tmp_path: Path, folder: Path, server: ComfyStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loopanimate_core.batch.runner.HAND_OVER_S", 0.05)
    other = ComfyStandIn(tmp_path / "other")
    server.die_before = 1
    other.go.clear()  # so that the first one gets its share

    def listen(event: BatchEvent) -> None:
        if event.kind == "gone":
            other.go.set()

    run = Run(tmp_path, folder, server, other, listen=listen)
    assert run.error is None
    assert loops(tmp_path) == ALL
    # The loop of the stopped server may or may not have been collected in time.
    assert len(server.outputs) == 1
    assert len(other.outputs) in (5, 6)
    other.kill()


def test_batch_finds_its_prompts_after_a_crash(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    class Crash(BaseException):
        pass

    def listen(event: BatchEvent) -> None:
        raise Crash

    server.run_s = 0.1
    with pytest.raises(Crash):
        Run(tmp_path, folder, server, listen=listen)
    posted = len(server.posted)
    assert 1 <= posted < 6
    assert Run(tmp_path, folder, server).error is None
    assert len(server.posted) == 6  # nothing was posted twice
    assert loops(tmp_path) == ALL


@pytest.fixture
def default_sigint_handler() -> Iterator[None]:
    """Background jobs of a shell ignore SIGINT, and Python inherits that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("default_sigint_handler")
def test_ctrl_c_removes_prompts_that_have_not_started(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    import _thread

    server.run_s = 0.3
    pressed: list[BatchEvent] = []

    def listen(event: BatchEvent) -> None:
        if not pressed:  # only once: a second Ctrl-C may interrupt the clean-up
            pressed.append(event)
            _thread.interrupt_main()

    run = Run(tmp_path, folder, server, listen=listen)
    assert isinstance(run.error, KeyboardInterrupt)
    assert not server.pending
    assert Run(tmp_path, folder, server).error is None
    assert loops(tmp_path) == ALL
    assert len(server.outputs) == 6


def test_a_picture_that_crashes_its_server_fails(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    deaths = 0

    def listen(event: BatchEvent) -> None:
        nonlocal deaths
        if event.kind == "gone":
            deaths += 1
            server.die_before = 0 if deaths < 3 else -1
            threading.Timer(0.05, server.start).start()

    server.die_before = 0
    run = Run(tmp_path, folder, server, listen=listen)
    (failed,) = [r for r in run.batch.records.values() if r.status == "failed"]
    assert failed.picture == "p0.png"
    assert "stopped 3 times" in failed.reason
    assert run.count("done") == 5


def test_rejected_workflow_stops_the_batch_with_the_servers_reason(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    server.refuse = "seed: 7 is too small"
    run = Run(tmp_path, folder, server)
    assert "LoopAnimate_LoopSampler (5): seed: 7 is too small" in str(run.error)
    assert run.count("failed") == 0
    server.refuse, server.partly, server.run_s = "", True, 0.2
    run = Run(tmp_path, folder, server)  # accepted without one of the outputs
    assert "partly" in str(run.error)


def test_broken_workflow_stops_before_every_picture_fails(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    server.fail_for = "p"
    run = Run(tmp_path, folder, server)
    assert "first 5 pictures all failed" in str(run.error)
    assert run.count("failed") == 5


def test_only_one_batch_uses_a_state_file(tmp_path: Path) -> None:
    state = BatchState(tmp_path / "state.sqlite", "job")
    with pytest.raises(LoopAnimateError, match="another batch"):
        BatchState(tmp_path / "state.sqlite", "job")
    state.close()
    BatchState(tmp_path / "state.sqlite", "job").close()
    (tmp_path / "text.sqlite").write_text("not a database, but long enough to be looked at " * 9)
    with pytest.raises(LoopAnimateError, match="not the state file of a batch"):
        BatchState(tmp_path / "text.sqlite", "job")


# -------------------------------------------------------------------------------- the command line
def command(tmp_path: Path, folder: Path, url: str, *more: str) -> list[str]:
    workflow = str(write_graph(tmp_path))
    return ["batch", str(folder), "--workflow", workflow, "--server", url, "--quiet", *more]


def test_the_command_lists_failures_and_returns_1(
    tmp_path: Path, folder: Path, server: ComfyStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "p1.png").write_bytes(b"no picture")
    out = tmp_path / "made" / "here"
    assert main(command(tmp_path, folder, server.url, "--out", str(out))) == 1
    shown = capsys.readouterr()
    assert "5 of 6 pictures have a loop, failed:\n  p1.png: " in shown.out
    assert len(list(out.iterdir())) == 5
    assert (tmp_path / "pictures.loopanimate.sqlite").is_file()


def test_nothing_is_posted_if_a_node_is_missing(
    tmp_path: Path, folder: Path, server: ComfyStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    server.node_types.remove("LoopAnimate_LoopSampler")
    assert main(command(tmp_path, folder, server.url)) == 2
    assert "does not have the nodes LoopAnimate_LoopSampler" in capsys.readouterr().err
    assert not server.posted


def test_no_server_and_no_comfyui(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, folder, "127.0.0.1:9")) == 2
    assert "no ComfyUI server answers" in capsys.readouterr().err
    assert main(command(tmp_path, folder, "http://")) == 2
    assert "must be a URL like" in capsys.readouterr().err


def test_state_option_sets_the_path_of_the_state_file(
    tmp_path: Path, folder: Path, server: ComfyStandIn
) -> None:
    state = tmp_path / "elsewhere.sqlite"
    assert main(command(tmp_path, folder, server.url, "--state", str(state), "--seed", "5")) == 0
    assert state.is_file()
    assert {graph["5"]["inputs"]["seed"] for graph in server.posted} == {5}
