"""What the trainer reads: data sets, checkpoints and runs that somebody else made."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
from io import BytesIO
from pathlib import Path
from random import Random

import pytest
import torch
from attacking import Counters, damaged, odd, seeds
from waiting import HANGS_S, wait_until

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.video import write_video
from loopanimate_training.data.index.probe import probe
from loopanimate_training.data.readers.rows import Blob, Row
from loopanimate_training.data.readers.tables import read_table
from loopanimate_training.data.readers.tars import TarReader
from loopanimate_training.run import log as runlog
from loopanimate_training.run.report import write_page
from loopanimate_training.storage.checkpoint import (
    MANIFEST,
    STATE,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
)


@pytest.mark.skipif(not Path("/proc/self/net/udp").exists(), reason="looks for sockets in /proc")
def test_a_text_in_a_tar_opens_no_socket(tmp_path: Path) -> None:
    """SDP names a port to listen on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    text = f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
    tar = tmp_path / "x.tar"
    with tarfile.open(tar, "w") as file:
        for name in ("a.mp4", "b.mkv"):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            file.addfile(info, BytesIO(text.encode()))
    (tmp_path / "c.mp4").write_text(text)
    rows = [*TarReader((tar,)).rows(), Row("c", Blob(tmp_path / "c.mp4"))]
    assert len(rows) == 3
    reasons: list[str] = []
    probing = threading.Thread(
        target=lambda: reasons.extend(probe(row).reason for row in rows), daemon=True
    )
    probing.start()
    while probing.is_alive():
        assert f":{port:04X} " not in Path("/proc/self/net/udp").read_text()
        probing.join(0.001)
    assert reasons == ["cannot be decoded"] * 3


def test_a_video_is_opened_only_by_demuxers_of_videos(tmp_path: Path) -> None:
    from loopanimate_training.data.video import container

    """Others follow names in a file to another one, or to a server."""
    write_video(torch.rand(8, 64, 64, 3), tmp_path / "other.mp4", fps=8, repeats=1)
    path = tmp_path / "list.mp4"
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(container.DECODER_ERRORS), container.open_video(Blob(path)):
        pass
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:1/x.ts\n")
    with pytest.raises(container.DECODER_ERRORS), container.open_video(Blob(path)):
        pass


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
def test_pipes_and_devices_in_a_data_set_are_skipped(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    for name in ("pipe.mp4", "zero.mp4"):
        assert probe(Row(name, Blob(tmp_path / name))).reason == "cannot be decoded"


CHILD = """
import os, sys, time
from pathlib import Path
from loopanimate_training.storage.children import requests

for request in requests():
    Path(request["pid_file"]).write_text(str(os.getpid()))
    time.sleep(3600)
"""
PARENT = """
import sys
from loopanimate_training.storage.children import ChildPool

with ChildPool("sleeping_child", 1, 3600.0) as pool:
    pool.ask({"pid_file": sys.argv[1]})
"""


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for a process in /proc")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeping_child.py").write_text(CHILD)
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    pid_file = tmp_path / "pid"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(pid_file)], env={**os.environ, "PYTHONPATH": path}
    )
    wait_until("the child works", lambda: pid_file.exists() and pid_file.read_text())
    child = int(pid_file.read_text())
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(HANGS_S)

    def ended() -> bool:
        try:
            return "Z" in Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True

    wait_until("the child ends", ended)


def sign(folder: Path) -> None:
    """Make the manifest fit whatever the files are now."""
    manifest = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != MANIFEST
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_checkpoints_that_were_signed_again(tmp_path: Path) -> None:
    weights = {"unet.a": torch.ones(2)}
    config = {"out": str(tmp_path), "steps": 3, "clip": {"f": 8}}
    checkpoint = Checkpoint(1, config, weights, weights, {"state": {}}, 0.5, (2.0, 3))
    whole = save_checkpoint(tmp_path, checkpoint, keep=1)
    contents = {path.name: path.read_bytes() for path in whole.iterdir()}
    counters = Counters("checkpoints")
    for seed in seeds(40, 856, 1692):
        random = Random(seed)
        for name, content in contents.items():
            (whole / name).write_bytes(content)
        if seed % 2:
            state = odd(json.loads(contents[STATE]), random)
            (whole / STATE).write_text(json.dumps(state))
        else:
            name = random.choice(sorted(set(contents) - {MANIFEST}))
            (whole / name).write_bytes(damaged(contents[name], random))
        sign(whole)
        if seed % 5 == 0:
            manifest = json.loads((whole / MANIFEST).read_text())
            (whole / MANIFEST).write_text(json.dumps(odd(manifest, random)))
        with counters.case(f"checkpoint {seed}") as fail:
            try:
                found = load_checkpoint(whole)
                if not isinstance(found.step, int) or not isinstance(found.config, dict):
                    fail("accepts another type")
            except LoopAnimateError:
                pass
    counters.require_zeros()


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "pipe", "a/b", ".."])
def test_a_manifest_cannot_name_other_files(tmp_path: Path, name: str) -> None:
    weights = {"unet.a": torch.ones(2)}
    folder = save_checkpoint(
        tmp_path, Checkpoint(1, {"out": "x"}, weights, weights, {"state": {}}), keep=1
    )
    if name == "pipe":
        os.mkfifo(folder / "pipe")
    manifest = json.loads((folder / MANIFEST).read_text()) | {name: "0" * 64}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(LoopAnimateError):
        load_checkpoint(folder)


def test_reports_of_odd_runs(tmp_path: Path) -> None:
    counters = Counters("run logs")
    row = {
        "step": 3,
        "loss": 0.5,
        "mean_loss": 0.4,
        "lr": 1e-4,
        "grad_norm": 1.0,
        "clips_per_s": 2.0,
        "data_wait_s": 0.1,
        "memory_gb": 1.0,
        "time": 5.0,
    }
    event = {"step": 4, "event": "<script>alert(1)</script>"}
    settings = {
        "title": "run",
        "stage": 1,
        "steps": 10,
        "clip": {"f": 8, "width_px": 64, "height_px": 64, "shapes": [[64, 64]]},
        "batch": {"size": 1, "accumulate": 2},
        "model": {"train": ["conv_in"]},
    }
    loops = {"loops": [{"prompt": "<script>alert(1)</script>", "verdict": "loops", "motion": 1.0}]}
    for seed in seeds(40, 142, 1379):
        random = Random(seed)
        rows = [row, odd(row, random), odd(event, random), event, odd([row], random)]
        lines = [json.dumps(one) for one in rows]
        (tmp_path / runlog.FILE).write_bytes(damaged("\n".join(lines).encode(), random) + b"\n{}")
        (tmp_path / runlog.FILE).open("a").write("\n" + json.dumps(row) + "\n")
        (tmp_path / "sheet-00000003.png").write_bytes(b"x")
        (tmp_path / "sheet-<b>.png").write_bytes(b"x")
        (tmp_path / "loops-00000003.json").write_text(json.dumps(odd(loops, random)))
        (tmp_path / "heartbeat.json").write_text(
            json.dumps(odd({"state": "x", "steps": 3}, random))
        )
        with counters.case(f"report {seed}") as fail:
            changed = odd(settings, random)
            if not isinstance(changed, dict):
                changed = settings
            page = write_page(tmp_path, settings=changed).read_text(encoding="utf-8")
            if "<script" in page:
                fail("has a script")
    counters.require_zeros()


def test_rows_of_tables(tmp_path: Path) -> None:
    counters = Counters("tables")
    rows = [{"path": "a.mp4", "caption": "a cat", "start": 0.5}, {"path": "b.mp4", "caption": "ü"}]
    whole = "\n".join(map(json.dumps, rows)).encode()
    extra = (
        b'{"a":' * 100_000,
        b'{"caption": "\\ud800"}',
        b'{"n": ' + b"9" * 6000 + b"}",
        b"\xff\xfe",
    )
    for seed in seeds(80):
        random = Random(seed)
        suffix = random.choice((".jsonl", ".csv", ".tsv"))
        content = damaged(whole, random) + b"\n" + random.choice(extra)
        path = tmp_path / f"x{suffix}"
        path.write_bytes(content)
        with counters.case(f"table {seed}"):
            try:
                for values in read_table(path):
                    assert values is None or isinstance(values, dict)
            except LoopAnimateError:
                pass
    counters.require_zeros()
