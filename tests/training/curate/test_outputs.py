"""The table, which the trainer reads, the page, and the command that writes both."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from loopanimate_training.cli import main
from loopanimate_training.config import DataConfig, RunConfig
from loopanimate_training.curate.histogram import histogram
from loopanimate_training.curate.measure import Scores
from loopanimate_training.data.readers.detect import open_reader
from loopanimate_training.loop import train

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed (extra parquet)")

SETTINGS = ("--set", "measure.f=4", "--set", "limits.shortest_side_px=32", "--workers", "1")


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def test_every_clip_is_in_the_table(curated: Path) -> None:
    rows = {row["id"]: row for row in parquet.read_table(curated).to_pylist()}
    assert len(rows) == 9
    kept = rows["kept"]
    assert (kept["status"], kept["reason"], kept["reasons"]) == ("kept", "", [])
    assert kept["path"] == "clips/kept.mp4" and kept["caption"] == "a ball swinging"
    assert kept["thing"] == "ball" and kept["object_by"] == "bundled network"
    assert rows["cuts"]["changed_frames"] == [15] and "cuts" in rows["cuts"]["reasons"]
    assert rows["broken"]["status"] == "failed" and rows["broken"]["motion"] is None
    assert set(Scores.__dataclass_fields__) - {"changes", "windows"} <= set(kept)


def test_the_trainer_reads_the_table_and_uses_the_kept_clips(curated: Path) -> None:
    reader = open_reader(DataConfig(source="videos", path=curated))
    rows = {row.id: row for row in reader.rows()}
    assert reader.name == "curated table" and len(rows) == 9
    usable = sorted(row.id for row in rows.values() if not row.reason)
    assert usable == ["kept", "kept_panning"]
    assert rows["kept"].media.path == curated.parent / "clips/kept.mp4"
    assert rows["static"].reason == "not kept by curate: static"


def test_inspect_counts_the_reasons(curated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = f"data.index={curated.parent / 'index'}"
    assert run("inspect", str(curated), "--set", index, "--set", "clip.f=4", "--stage", "2") == 0
    shown = capsys.readouterr().out
    assert re.search(r"to train on +2", shown) and "not kept by curate: duplicate" in shown


def test_a_run_trains_on_the_table(curated: Path, make_run: Callable[..., RunConfig]) -> None:
    result = train(make_run(steps=1, **{"data.path": curated, "clip.f": 4}))
    assert result.exit_code == 0


def test_the_page_shows_counts_limits_and_pictures(curated: Path) -> None:
    page = curated.with_suffix(".html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64,") == 8  # all but the broken one
    for text in ("limits.presence", "object gone", "looks like kept", "bundled network"):
        assert text in page
    assert len(list((curated.with_suffix(".scores") / "pictures").iterdir())) == 8
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "")


def test_a_histogram_covers_its_limit_and_any_values() -> None:
    for values in ([(0.0, True)], [(0.1, False), (0.5, True)] * 50):
        figure = histogram("Shake & more", "caption", values, 0.9)
        places = [float(x) for x in re.findall(r'<rect[^>]* x="([\d.]+)"', figure)]
        assert places and all(0 <= x <= 420 for x in places) and "Shake &amp; more" in figure
        assert 'class="limit" x1="420.0"' in figure


def test_shares_write_no_table(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, one = tmp_path / "salient.parquet", ("--set", "data.clips=1")
    assert run("curate", str(clips), "-o", str(table), *SETTINGS, *one, "--shard", "1/2") == 0
    assert "share 1/2: 1 clips are measured" in capsys.readouterr().out and not table.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent", "-o", "a.parquet"), "absent does not exist"),
        (("{clips}", "-o", "a.csv"), "must end in .parquet"),
        (("{clips}", "-o", "a.parquet", "--workers", "-1"), "--workers must be at least 1"),
        (("{clips}", "-o", "a.parquet", "--set", "limits.blur=1"), "there is no such setting"),
        (("{clips}", "-o", "a.parquet", "--set", "limits.motion=2"), "limits.motion"),
        (("{clips}", "-o", "a.parquet", "--stage", "9"), "stage is 9"),
        (("{clips}", "-o", "a.parquet", "--set", "data.source=mini"), "nothing to curate"),
    ],
)
def test_mistakes_are_one_sentence(
    clips: Path, arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("curate", *(part.format(clips=clips) for part in arguments)) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_settings_file_names_data_and_limits(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "curate.yaml"
    file.write_text(
        f"data: {{source: videos, path: {clips}, clips: 1}}\n"
        "measure: {f: 4}\nlimits: {motion: 0.02}\nworkers: {time_limit_s: 100}\n"
    )
    table = tmp_path / "salient.parquet"
    assert run("curate", str(file), "-o", str(table), "--workers", "1") == 0
    assert "failed" in capsys.readouterr().out  # broken.mp4 is the first
    assert parquet.read_table(table).num_rows == 1
