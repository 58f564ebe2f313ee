"""The study: blind pairs on one page, and the tables of the answers."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.evaluate.collect import collect_answers
from loopanimate_core.evaluate.study import make_pairs

SYSTEMS = ("Alpha9", "Beta9", "Gamma9")


def held(page: str, name: str) -> Any:
    """The JSON that a page holds."""
    found = re.search(rf'id="{name}">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


def key_file(folder: Path, pictures: int = 4) -> Path:
    """The key of a study of all systems."""
    score = {"mean": 0.9, "low": 0.8, "high": 1.0}
    systems = {label: {"routing": None, "loop_c": score} for label in SYSTEMS}
    systems["Alpha9"]["routing"] = ["image", "text", "text"]  # type: ignore[assignment]
    loops = {
        f"{label}{number}": {"system": label, "picture": str(number)}
        for label in SYSTEMS
        for number in range(pictures)
    }
    key = {"format": "loopanimate-study-key/1", "study": "s1", "systems": systems, "loops": loops}
    path = folder / "key.json"
    path.write_text(json.dumps(key))
    return path


def answer_file(
    folder: Path, person: str, scores: dict[str, tuple[Any, Any]], **changes: Any
) -> Path:
    """The answers of one participant: scores by loop."""
    answers = [
        {"loop": loop, "beside": "", "q_s": q_s, "q_m": q_m} for loop, (q_s, q_m) in scores.items()
    ]
    content = {
        "format": "loopanimate-study-answers/1",
        "study": "s1",
        "participant": person,
        "answers": answers,
    }
    path = folder / f"answers_{person}.json"
    path.write_text(json.dumps(content | changes))
    return path


@pytest.mark.parametrize("count", range(2, 8))
def test_every_system_is_in_a_pair_and_none_is_beside_itself(count: int) -> None:
    labels = [str(number) for number in range(count)]
    for seed in range(20):
        pairs = make_pairs(labels, random.Random(seed))
        seen = Counter(label for pair in pairs for label in pair)
        assert seen.keys() == set(labels) and max(seen.values()) <= 2
        assert len(pairs) == (count + 1) // 2 and all(a != b for a, b in pairs)


def test_the_page_is_blind_and_whole(evaluate, folder: Path) -> None:
    videos = ["--videos", "Alpha9=svd", "--videos", "Beta9=cut"]
    assert evaluate(*videos, "--study", "study.html") == 0
    page = (folder / "study.html").read_text()
    for word in ("Alpha9", "Beta9", "svd", "http://", "https://", "cat.", "made/", "loops/"):
        assert word not in re.sub(r"base64,[^\"]*", "", page)
    study, loops = held(page, "study"), held(page, "loops")
    key = json.loads((folder / "study_key.json").read_text())
    assert key["study"] == study["study"] and key["loops"].keys() == loops.keys()
    assert {loop for pair in study["pairs"] for loop in pair["loops"]} == loops.keys()
    for pair in study["pairs"]:
        first, second = (key["loops"][loop] for loop in pair["loops"])
        assert first["picture"] == second["picture"] and first["system"] != second["system"]
    assert evaluate(*videos, "--study", "study.html") == 2, (
        "answers to an overwritten study are lost"
    )


def test_a_loop_that_failed_is_not_in_the_study(evaluate, folder: Path) -> None:
    (folder / "cut/cat.mp4").unlink()
    arguments = ["--videos", "svd", "--videos", "cut", "--study", "study.html"]
    assert evaluate(*arguments) == 1
    key = json.loads((folder / "study_key.json").read_text())
    assert {loop["picture"] for loop in key["loops"].values()} == {"dog"}
    (folder / "cut/dog.mp4").unlink()
    assert evaluate(*arguments, "--force") == 2


def test_collected_answers_are_means_per_system(tmp_path: Path) -> None:
    everything = {f"Alpha9{n}": (3, 2) for n in range(4)} | {
        f"Beta9{n}": (1 + n % 2, 1) for n in range(4)
    }
    files = [answer_file(tmp_path, name, everything) for name in ("p", "q")]
    found = collect_answers(files, key_file(tmp_path))
    assert found["participants"] == 2
    alpha, beta, gamma = (found["systems"][label] for label in SYSTEMS)
    assert alpha["q_s"] == {"mean": 3.0, "low": 3.0, "high": 3.0} and alpha["q_m"]["mean"] == 2.0
    assert beta["q_s"]["mean"] == 1.5 and 1 <= beta["q_s"]["low"] < 1.5 < beta["q_s"]["high"] <= 2
    assert gamma["q_s"]["mean"] is None and gamma["ratings"] == 0
    assert found == collect_answers(files, key_file(tmp_path)), "the bootstrap is seeded"


def test_a_loop_seen_twice_counts_once(tmp_path: Path) -> None:
    rows = [{"loop": "Alpha90", "q_s": score, "q_m": 1} for score in (1, 3)]
    rows.append({"loop": "Alpha91", "q_s": 3, "q_m": 1})
    file = answer_file(tmp_path, "p", {}, answers=rows)
    assert collect_answers([file], key_file(tmp_path))["systems"]["Alpha9"]["q_s"]["mean"] == 2.5


def test_the_tables_are_printed_and_written(tmp_path: Path, evaluate, capsys) -> None:
    file = answer_file(tmp_path, "p", {"Alpha90": (3, 2), "Beta90": (1, 1)})
    assert evaluate("--collect", str(file), "--key", str(key_file(tmp_path))) == 0
    text = capsys.readouterr().out
    assert re.search(r"Q_S ↑ +\| 3.0 +\| 1.0 +\| –", text)
    assert re.search(r"Alpha9 +\| IE +\| TE +\| TE +\| 3.0 +\| 2.0 +\| 0.900", text)
    lines = (tmp_path / "out/study.csv").read_text().splitlines()
    assert lines[1].startswith("Alpha9,image,text,text,1,3.0")


@pytest.mark.parametrize(
    ("changes", "scores", "message"),
    [
        ({"study": "s2"}, {}, "answers another study"),
        ({"format": "x"}, {}, "does not hold the answers of a study"),
        ({}, {"Delta90": (1, 1)}, "rates a loop that is not in the study"),
        ({}, {"Alpha90": (1, 4)}, "scores must be 1 to 3, got 1 and 4"),
        ({}, {"Alpha90": (None, 1)}, "scores must be 1 to 3, got None and 1"),
        ({}, {}, "there are no answers"),
    ],
)
def test_wrong_answers_are_refused(
    tmp_path: Path, changes: dict[str, str], scores: dict[str, tuple], message: str
) -> None:
    file = answer_file(tmp_path, "p", scores, **changes)
    with pytest.raises(LoopAnimateError, match=message):
        collect_answers([file], key_file(tmp_path))


def test_the_same_participant_does_not_count_twice(tmp_path: Path) -> None:
    file = answer_file(tmp_path, "p", {"Alpha90": (1, 1)})
    with pytest.raises(LoopAnimateError, match="of the same participant"):
        collect_answers([file, file], key_file(tmp_path))
    (tmp_path / "torn.json").write_text('{"format"')
    with pytest.raises(LoopAnimateError, match="is not a JSON file"):
        collect_answers([tmp_path / "torn.json"], key_file(tmp_path))


def test_a_participant_fills_in_the_page_in_a_browser(
    folder: Path, evaluate: Callable[..., int]
) -> None:
    """Begin, rate every pair, close the page in between, save the answers; then they are collected."""
    node, browser = shutil.which("node"), shutil.which("chromium")
    modules = Path(os.environ.get("PLAYWRIGHT_CORE", "~/comfy/browser/node_modules")).expanduser()
    if node is None or browser is None or not (modules / "playwright-core").is_dir():
        pytest.skip("Node, Chromium or playwright-core is not installed")
    videos = ("--videos", "one=svd", "--videos", "two=cut", "--baseline", "still")
    assert evaluate(*videos, "--study", "study.html") == 0
    options = {
        "page": str(folder / "study.html"),
        "browser": browser,
        "playwright": str(modules),
        "out": str(folder / "answers.json"),
    }
    script = Path(__file__).with_name("fill_study.mjs")
    command = [node, str(script), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["problems"] == [] and seen["moved"] and seen["screens"] == 4
    assert re.fullmatch(r"answers_[0-9a-f]{16}\.json", seen["name"])
    found = collect_answers([folder / "answers.json"], folder / "study_key.json")
    assert {label: one["q_s"]["mean"] for label, one in found["systems"].items()} == {
        "one": 3.0,
        "two": 3.0,
        "still": 3.0,
    }
    assert all(one["q_m"]["mean"] == 2.0 for one in found["systems"].values())
