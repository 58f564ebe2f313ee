"""A folder is curated: every clip gets a status and a reason, also after kills, in shards and with other limits."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from curated_scenes import scene
from h264 import write_video

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import CurateConfig
from loopanimate_training.curate import executors
from loopanimate_training.curate.driver import Verdict, count_rows, decide, list_rows, measure_all
from loopanimate_training.curate.journal import Journal
from loopanimate_training.curate.outcome import FAILED, QUARANTINED, Outcome
from loopanimate_training.curate.worker import CRASHES, TOO_SLOW, WorkerPool
from loopanimate_training.data.readers.rows import Blob, Row
from loopanimate_training.data.shard import Shard
from loopanimate_training.data.video.scan import scan_video

Curation = Callable[..., CurateConfig]
REASONS = {
    "kept": "",
    "kept_panning": "",
    "twin": "duplicate",
    "too_short": "too short",
    "cuts": "cuts",
    "static": "static",
    "gone": "object gone",
    "nothing": "caption names no thing",
    "broken": "cannot be decoded",
}


def curate(config: CurateConfig, table: Path, **options: Any) -> dict[str, Verdict]:
    rows = list_rows(config)
    verdicts = decide(rows, measure_all(rows, config, table, **options), config)
    return {verdict.row.id: verdict for verdict in verdicts}


def test_every_clip_gets_its_reason(clips: Path, curated: Path, curation: Curation) -> None:
    found = curate(curation(clips), curated)
    assert {name: verdict.reason for name, verdict in found.items()} == REASONS
    assert {v.status for v in found.values() if not v.reason} == {"kept"}
    assert found["broken"].status == FAILED and found["cuts"].status == "rejected"
    lines = count_rows(list(found.values()))
    assert lines[0].startswith("kept") and sum(int(line.split()[-1]) for line in lines) == 9


def test_the_good_part_of_a_clip_is_kept(clips: Path, curation: Curation, tmp_path: Path) -> None:
    """The object is gone from frame 24 of 30; the first window, of 19 frames, is good."""
    config = curation(clips, **{"measure.windows": 3})
    rows = [row for row in list_rows(config) if row.id in ("gone", "kept", "cuts")]
    outcomes = measure_all(rows, config, tmp_path / "salient.parquet")
    found = {v.row.id: v for v in decide(rows, outcomes, config)}
    gone = found["gone"]
    assert gone.status == "kept" and gone.note == "frames 0 to 18 of 30; all of it: object gone"
    part = scan_video(gone.row.media, gone.row.start_s, gone.row.end_s)
    assert gone.outcome.scores is not None and gone.outcome.scores.frames == part.frames == 19
    assert found["kept"].note == "" and found["kept"].row.end_s is None
    assert found["cuts"].status == "rejected"  # at frame 15: in every window
    again = Outcome.from_values(json.loads(json.dumps(outcomes[1].to_values())))
    assert again == outcomes[1] and again.scores is not None and len(again.scores.windows) == 3


def test_other_limits_decide_again_without_measuring(
    clips: Path, curated: Path, curation: Curation
) -> None:
    curate(curation(clips), curated)
    written = {
        path: path.stat().st_mtime_ns
        for path in Journal(curated, curation(clips).measure).folder.glob("*.jsonl")
    }
    changed = curation(clips, **{"limits.motion": 0, "limits.duplicate_bits": -1})
    found = curate(changed, curated)
    assert found["twin"].reason == "" and found["static"].reason == "object rests"
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_shards_measure_parts_and_the_whole_only_joins_them(
    clips: Path, curated: Path, curation: Curation, tmp_path: Path
) -> None:
    config, joined = curation(clips, **{"data.clips": 4}), tmp_path / "salient.parquet"
    rows = list_rows(config)
    parts = [measure_all(rows, config, joined, shard=Shard(n, 2)) for n in range(2)]
    assert [len(part) for part in parts] == [2, 2]
    files = {path.name for path in Journal(joined, config.measure).folder.glob("*.jsonl")}
    assert files == {"1-of-2.jsonl", "2-of-2.jsonl"}
    outcomes = measure_all(rows, config, joined)
    assert not (Journal(joined, config.measure).folder / "1-of-1.jsonl").exists()
    assert outcomes == measure_all(rows, config, curated)  # as without shards


@pytest.fixture
def patient_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, which on a busy machine takes longer to start than the 30 s that it allows itself."""
    pytest.importorskip("ray", reason="Ray is not installed (no extra includes it)")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "600")


@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_killed_curation_continues_and_ends_with_the_same_result(
    clips: Path,
    curated: Path,
    curation: Curation,
    tmp_path: Path,
    executor: executors.Executor,
    request: pytest.FixtureRequest,
) -> None:
    if executor == "ray":
        request.getfixturevalue("patient_ray")
    config, target = curation(clips, **{"data.clips": 4}), tmp_path / "salient.parquet"
    settings = ["--set", "measure.f=4", "--set", "measure.windows=1", "--set", "data.clips=4"]
    command = ["-m", "loopanimate_training", "curate", str(clips), "-o", str(target), *settings]
    command += ["--workers", "1", "--executor", executor]
    journal = target.with_suffix(".scores") / "1-of-1.jsonl"
    process = subprocess.Popen([sys.executable, *command], env=_environment())
    while process.poll() is None and not (
        journal.is_file() and journal.read_bytes().count(b"\n") >= 2
    ):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with journal.open("ab") as file:
        file.write(b'{"key": "cut o')  # a line that a crash cut off
    before = journal.read_bytes()
    rows = list_rows(config)
    outcomes = measure_all(rows, config, target, executor=executor)
    assert outcomes == measure_all(rows, config, curated)
    assert journal.read_bytes().startswith(before)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
def test_clips_that_hang_or_kill_their_worker_are_quarantined(
    clips: Path, curation: Curation, tmp_path: Path
) -> None:
    """A pipe stands for a file that never ends, a kill for a decoder that crashes."""
    pipe = tmp_path / "poison.mp4"
    os.mkfifo(pipe)
    poison, good = Row("p", Blob(pipe), "a ball"), Row("k", Blob(clips / "kept.mp4"), "a ball")
    with WorkerPool(curation(clips, **{"workers.time_limit_s": 0.5}), 1) as pool:
        assert (pool.measure(poison).status, pool.measure(poison).reason) == (QUARANTINED, TOO_SLOW)
    with WorkerPool(curation(clips), 1) as pool:
        answers: list[Outcome] = []
        thread = threading.Thread(target=lambda: answers.append(pool.measure(poison)))
        thread.start()
        for _ in range(2):  # it gets a second chance in a fresh worker
            while not (running := [child for child in pool._children if child.poll() is None]):
                time.sleep(0.01)
            running[0].kill()
            running[0].wait()
        thread.join()
        assert (answers[0].status, answers[0].reason) == (QUARANTINED, CRASHES)
        assert pool.measure(good).scores is not None


def test_quarantined_clips_are_measured_again_only_when_asked(
    clips: Path, curation: Curation, tmp_path: Path
) -> None:
    config, target = curation(clips, **{"data.clips": 1}), tmp_path / "salient.parquet"
    journal, rows = Journal(target, config.measure), list_rows(config)  # one that cannot be decoded
    quarantined = Outcome(None, QUARANTINED, CRASHES, "")
    with journal.writing(Shard()) as writer:
        writer.write({"key": journal.key(rows[0]), "id": "x", **quarantined.to_values()})
    assert measure_all(rows, config, target) == [quarantined]
    assert measure_all(rows, config, target, retry=True)[0].status != QUARANTINED


def test_a_missing_clip_and_a_refused_row_are_in_the_result(
    clips: Path, curation: Curation, tmp_path: Path
) -> None:
    rows = [Row("a", Blob(clips / "absent.mp4"), "a cat"), Row("b", Blob(clips), reason="bad row")]
    config = curation(clips)
    outcomes = measure_all(rows, config, tmp_path / "salient.parquet")
    assert [(one.status, one.reason) for one in outcomes] == [
        (FAILED, "missing"),
        (FAILED, "bad row"),
    ]
    assert [verdict.status for verdict in decide(rows, outcomes, config)] == [FAILED, FAILED]


def test_a_wrong_network_stops_with_a_sentence(
    clips: Path, curation: Curation, tmp_path: Path
) -> None:
    config = curation(clips, **{"measure.network": tmp_path / "no.onnx", "data.clips": 2})
    with pytest.raises(LoopAnimateError, match=r"no ONNX model .*no\.onnx"):
        measure_all(list_rows(config), config, tmp_path / "salient.parquet")


def test_a_ray_that_does_not_start_is_one_sentence(
    clips: Path, curation: Curation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")

    ray = SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", ray)  # pyright: ignore[reportArgumentType]
    config = curation(clips, **{"data.clips": 1})
    with pytest.raises(LoopAnimateError, match="Ray does not start: The current node timed out"):
        measure_all(list_rows(config), config, tmp_path / "ray.parquet", executor="ray")


@pytest.mark.usefixtures("patient_ray")
def test_ray_measures_the_same(
    clips: Path, curated: Path, curation: Curation, tmp_path: Path
) -> None:
    config = curation(clips)
    rows = list_rows(config)
    outcomes = measure_all(rows, config, tmp_path / "ray.parquet", executor="ray", workers=2)
    assert outcomes == measure_all(rows, config, curated)


def test_parts_of_ray_are_measured_like_clips(
    clips: Path, curated: Path, curation: Curation
) -> None:
    """What a Ray task runs, without Ray."""
    config = curation(clips)
    rows = list_rows(config)[:2]
    part = [executors.to_request(row) for row in rows]
    settings = config.model_dump_json()
    with executors._child(settings):
        values = executors._measure_part(settings, part)
    executors._child.cache_clear()
    assert [Outcome.from_values(one) for one in values] == measure_all(rows, config, curated)


def test_an_outcome_survives_json() -> None:
    outcome = Outcome(None, FAILED, "cannot be decoded", "why")
    assert Outcome.from_values(outcome.to_values()) == outcome
    assert dataclasses.asdict(outcome)["scores"] is None


def test_only_natural_loops_are_kept_and_cut_to_one_round(
    clips: Path, curation: Curation, tmp_path: Path
) -> None:
    """There and back in 26 frames, one and a half times; of the other clip no frame comes back."""
    (tmp_path / "loops").mkdir()
    there = scene(14, speed_px=4.0)
    both = np.concatenate([there, there[-2:0:-1]])
    write_video(tmp_path / "loops" / "swing.mp4", np.concatenate([both, both[:13]]))
    write_video(tmp_path / "loops" / "away.mp4", scene(30, speed_px=2.0))
    for name in ("swing", "away"):
        (tmp_path / "loops" / f"{name}.txt").write_text("a ball swinging")
    config = curation(tmp_path / "loops", **{"limits.loops": "only", "limits.presence": 0})
    found = curate(config, tmp_path / "salient.parquet")
    assert found["away"].reason == "no loop"
    swing = found["swing"]
    assert (swing.status, swing.note) == ("kept", "a loop of 26 frames")
    assert scan_video(swing.row.media, swing.row.start_s, swing.row.end_s).frames == 26
