"""Our DPM-Solver++ (2M) against diffusers': the same timesteps, noise levels and clips."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from closeness import relative_error

from loopanimate_core.schedule import (
    OWN_SOLVERS,
    ScheduleConfig,
    make_diffusers_scheduler,
    make_scheduler,
)

pytestmark = pytest.mark.numeric

CLOSE = 1e-4  # diffusers rounds its factors to float32, which the last steps magnify


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("beta_schedule", ["linear", "scaled_linear"])
@pytest.mark.parametrize("name", OWN_SOLVERS)
def test_equal_to_diffusers(name: str, beta_schedule: str, prediction_type: str) -> None:
    config = ScheduleConfig(beta_schedule, prediction_type=prediction_type)
    for steps, begin in ((1, 0), (2, 0), (8, 3), (12, 0), (14, 0), (25, 5), (50, 0)):
        ours: Any = make_scheduler(name, config)
        theirs: Any = make_diffusers_scheduler(name, config)
        generator = torch.Generator().manual_seed(steps)
        still, noise = torch.randn(2, 1, 4, 3, 2, 2, generator=generator)
        clips = []
        for scheduler in (ours, theirs):
            scheduler.set_timesteps(steps)
            scheduler.set_begin_index(begin)
            timesteps = scheduler.timesteps[begin:]
            x = scheduler.add_noise(still, noise, timesteps[:1])
            for t in timesteps:
                assert scheduler.scale_model_input(x, t) is x
                output = torch.sin(3 * x) + 0.1 * x  # any function of the clip
                x = scheduler.step(output, t, x, return_dict=False)[0]
            clips.append(x)
        assert (ours.timesteps - theirs.timesteps).abs().max() <= 1  # where halves are rounded
        assert torch.allclose(ours.sigmas, theirs.sigmas, rtol=1e-4)
        assert relative_error(*clips) < CLOSE, (steps, begin)


def test_the_default_needs_no_diffusers() -> None:
    """Reading the mini and making its sampler: a part of start-up that took as long as several steps."""
    code = """
import sys
from loopanimate_core import LoopAnimatePipeline
from loopanimate_core.schedule import make_scheduler
config = LoopAnimatePipeline.from_bundle().bundle.config
make_scheduler(config.defaults.scheduler, config.schedule)
print("diffusers" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"
