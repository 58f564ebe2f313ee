"""The commands for several processes in the documentation fit the settings beside them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import BatchConfig, resolve
from loopanimate_training.data.loader import require_divisible

TRAINING = Path(__file__).parents[2] / "training"
PAGES = sorted([TRAINING / "README.md", *(TRAINING / "launch").iterdir()])


def launched(page: Path) -> list[str]:
    """The commands of a page that start training on several processes."""
    text = re.sub(r"\\\n#?\s*", "", page.read_text(encoding="utf-8"))
    spans = re.findall(r"(?:accelerate launch|loopanimate-train)[^`|#\n]*", text)
    return [one for one in spans if "--stage 1 --config run.yaml" in one and "cache" not in one]


def processes_of(command: str) -> int:
    if found := re.search(r"--workers (\d+)", command):
        return int(found[1])
    if found := re.search(r"training/launch/\w+\.yaml", command):
        return yaml.safe_load((TRAINING.parent / found[0]).read_text())["num_processes"]
    return 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_batches_can_be_shared(page: Path, tmp_path: Path) -> None:
    readme = (TRAINING / "README.md").read_text(encoding="utf-8")
    settings = re.search(r"```yaml\n# run\.yaml\n(.*?)```", readme, re.DOTALL)
    assert settings
    (tmp_path / "run.yaml").write_text(settings[1])
    commands = launched(page)
    assert commands
    for command in commands:
        words = shlex.split(command)
        chosen = [words[i + 1] for i, word in enumerate(words) if word == "--set"]
        config = resolve(1, tmp_path / "run.yaml", chosen)
        require_divisible(config.batch, processes_of(command))
        assert config.batch.clips == max(8, processes_of(command)), command


def test_the_error_names_settings_that_work() -> None:
    with pytest.raises(LoopAnimateError) as error:
        require_divisible(BatchConfig(size=1, accumulate=8), 4)
    assert "(4), got 1; the same" in str(error.value)
    assert "--set batch.size=4 --set batch.accumulate=2" in str(error.value)
    with pytest.raises(LoopAnimateError, match=r"got 3$"):
        require_divisible(BatchConfig(size=3), 2)
