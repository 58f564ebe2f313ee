"""A batch against servers that misbehave: it ends, tells the truth, and writes only loops into `--out`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from attacking import Counters, control_characters, files_below
from hostile_server import ANSWERS, WAYS, HostileServer
from PIL import Image
from waiting import HANGS_S

from loopanimate_core.batch import Batch, BatchState, ComfyClient, list_pictures, transport
from loopanimate_core.batch.bodies import require_format
from loopanimate_core.batch.workflow import BatchWorkflow
from loopanimate_core.errors import LoopAnimateError

WORKFLOW: dict[str, Any] = {
    "3": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
    "5": {"class_type": "LoopAnimate_LoopSampler", "inputs": {"seed": 7, "image": ["3", 0]}},
    "9": {
        "class_type": "LoopAnimate_SaveLoop",
        "inputs": {"images": ["5", 0], "filename_prefix": "loop", "format": "mp4"},
    },
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of time and size, made so small that a test reaches them."""
    monkeypatch.setattr(transport, "ANSWER_S", 0.3)
    monkeypatch.setattr(transport, "SILENCE_S", 0.3)
    monkeypatch.setattr("loopanimate_core.batch.runner.PROBING_S", 0.1)
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 2**22)
    monkeypatch.setattr(transport.Transport.pieces, "__defaults__", (2**22,))
    monkeypatch.setattr(transport.Transport.read, "__defaults__", (2**22,))


def attack(folder: Path, route: str, way: str, counters: Counters, names: str = "a") -> None:
    """Run a batch of pictures against one way, and count what went wrong."""
    pictures, out = folder / "pictures", folder / "out"
    pictures.mkdir(parents=True)
    out.mkdir()
    for name in names:
        Image.new("RGB", (20, 20), "red").save(pictures / f"{name}.png")
    server = HostileServer(folder / "server", route, way)
    before = files_below(folder)
    said: list[str] = []
    with counters.case(f"{way} at {route}") as fail:
        ended = threading.Event()
        thread = threading.Thread(
            target=_batch, args=(pictures, out, server.url, said, fail, ended), daemon=True
        )
        thread.start()
        if not ended.wait(HANGS_S):
            counters.hangs += 1
            fail("does not end")
        if server.elsewhere:
            fail("followed a redirect to another server")
        if found := control_characters("".join(said)):
            fail(f"control characters {found!r} reach the terminal")
        for path in files_below(folder) - before - files_below(folder / "server"):
            if path.parent == folder and path.name.startswith("state"):
                continue
            if path.name.startswith(".partial-"):
                counters.leftovers += 1
                fail(f"left {path.name}")
            elif path.parent != out or path.suffix != ".mp4":
                fail(f"wrote {path}")
            else:
                require_format(path, ".mp4", path.name)
    server.kill()


def _batch(pictures: Path, out: Path, url: str, said: list[str], fail: Any, end: Any) -> None:
    workflow = BatchWorkflow(WORKFLOW, "3", ("9",))
    state = BatchState(out.parent / "state.sqlite", "job")
    found = list_pictures(pictures)
    try:
        client = ComfyClient(url)
        client.require_nodes(workflow.node_types)
        batch = Batch(
            workflow,
            found,
            [client],
            state,
            out=out,
            wait_s=0.05,
            picture_limit_s=0.3,
            poll_s=0.01,
            listen=lambda event: said.append(event.subject + event.text),
        )
        try:
            batch.run()
        except LoopAnimateError as error:
            said.append(str(error))
        for record in batch.records.values():
            said.append(record.reason)
            made = record.status == "done"
            if made and not (record.results and (out / record.results[0]).stat().st_size):
                fail(f"{record.picture} counts as done without a loop")
        statuses = {record.status for record in batch.records.values()}
        if not said and statuses != {"done"}:
            fail("not done, and nothing said")
    except (LoopAnimateError, transport.ServerGoneError) as error:
        said.append(str(error))
    except BaseException as error:
        fail(f"raised {error!r}")
    finally:
        state.close()
        end.set()


@pytest.mark.usefixtures("impatient")
def test_a_batch_ends_with_a_true_report_against_every_hostile_server(tmp_path: Path) -> None:
    counters = Counters("servers")
    for number, (route, way) in enumerate(WAYS):
        attack(tmp_path / str(number), route, way, counters)
    assert len(WAYS) >= 74 and len(ANSWERS) > 20
    counters.require_zeros()


def test_the_hostile_server_makes_loops_when_it_behaves(tmp_path: Path) -> None:
    """Otherwise the attacks above would prove nothing."""
    counters = Counters("a server without faults")
    attack(tmp_path, "", "", counters, "ab")
    counters.require_zeros()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.mp4", "b.mp4"}
