"""The page of a run, its curves, and the validation loops it shows."""

from __future__ import annotations

import json
import math
import re
import signal
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.commands.dry_run import describe_run
from loopanimate_training.config import RunConfig
from loopanimate_training.loop import train
from loopanimate_training.run.curves import curve, number, thin
from loopanimate_training.run.report import write_page
from loopanimate_training.testing import ENDLESS, RunProcess

MakeRun = Callable[..., RunConfig]


def test_a_run_ends_with_its_page(make_run: MakeRun) -> None:
    config = make_run(
        steps=3,
        title="Squares & <circles>",
        **{
            "validation.every_steps": 3,
            "validation.steps": 2,
            "validation.clips": 2,
            "batch.size": 1,
        },
    )
    train(config)
    html = (config.out / "report.html").read_text(encoding="utf-8")
    assert "Squares &amp; &lt;circles&gt;" in html and "<circles>" not in html
    assert all(f"<h2>{title}</h2>" in html for title in ("Curves", "Loops", "Settings"))
    assert 'src="data:image/png;base64,' in html and 'src="data:video/mp4;base64,' in html
    assert not re.search(r"""(src|href)=["'](?!data:)""", html) and "<script" not in html
    assert "step-00000003" in html and "a square swinging 0" in html
    assert '<em class="finished">finished</em>' in html

    measured = json.loads((config.out / "loops-00000003.json").read_text())
    assert [loop["prompt"] for loop in measured["loops"]] == [
        "a square swinging 0",
        "a square swinging 1",
    ]
    assert all(loop["frames"] == 14 and "verdict" in loop for loop in measured["loops"])

    row = json.loads((config.out / "log.jsonl").read_text().splitlines()[-1])
    assert row["memory_gb"] > 0.05

    with (config.out / "log.jsonl").open("a") as log:
        log.write(json.dumps({"step": 4, "event": "waited for the disk"}) + "\n")
    page = write_page(config.out, config.out / "again.html")
    assert "waited for the disk" in page.read_text()


def test_a_run_in_progress_has_a_page_from_its_first_sheet_on(make_run: MakeRun) -> None:
    settings = {
        "validation.every_steps": 1,
        "validation.steps": 1,
        "validation.clips": 1,
        "batch.size": 1,
    }
    config = make_run(steps=ENDLESS, **settings)
    page = config.out / "report.html"
    life = RunProcess(config)
    life.wait_until("a page", page.exists)
    html = page.read_text(encoding="utf-8")
    life.send(signal.SIGKILL)
    life.end()
    assert 'alt="Sheet of step 1"' in html and f"of {ENDLESS:,}" in html
    assert "stage 1 · trains conv_in, cab, temm<" in html and "<h2>Settings</h2>" in html
    later = write_page(config.out).read_text()  # of a folder whose run has no checkpoint yet
    assert "adapters" not in later and "<h2>Settings</h2>" not in later


def test_a_folder_without_a_run_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match="does not hold a run"):
        write_page(tmp_path)


def test_curves_are_well_formed_whatever_the_values() -> None:
    for values in (
        [1.0, 1.0],
        [0.0, -3.0, 2.0],
        [1e-6, 1e3, 5.0],
        [float(i % 7) for i in range(2000)],
        [1.0, math.nan, math.inf, 2.0, 3.0],
    ):
        svg = curve("Loss <x>", list(enumerate(values)), unit=" s")
        ElementTree.fromstring(svg)
        assert "nan" not in svg and "inf" not in svg
    assert curve("one point", [(1.0, 1.0)]) == ""


def test_thinning_keeps_ends_and_means() -> None:
    points = [(float(i), float(i)) for i in range(1000)]
    few = thin(points, 50)
    assert len(few) == 50 and few[0] == points[0] and few[-1] == points[-1]
    assert sum(y for _, y in few) / 50 == pytest.approx(499.5, rel=0.01)
    assert (number(0.0), number(12345.6), number(0.000123456)) == ("0", "12,346", "0.000123")


def test_dry_run_shows_schedule_and_adapters(make_run: MakeRun) -> None:
    text = describe_run(
        make_run(
            "2-lora", steps=100, **{"optimizer.schedule": "linear", "optimizer.warmup_steps": 10}
        )
    )
    assert "variant: lora" in text and "temm.q, adapters" not in text and "temm, adapters" in text
    rates = [line.count("#") for line in text.splitlines() if line.strip().endswith("#")]
    assert rates[:2] == [4, 40] and rates[1:] == sorted(rates[1:], reverse=True)
    assert "down blocks image, middle block text, up blocks text" in text
