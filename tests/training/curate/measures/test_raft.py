"""RAFT instead of DIS: its fields have the same shape and direction; weights are random, so no motion is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from curated_scenes import scene

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.curate.analysis import analyse
from loopanimate_training.curate.measures.raft import raft_flows


@pytest.fixture(scope="module")
def models() -> Any:
    try:
        from torchvision.models import optical_flow  # type: ignore[import-not-found]
    except (ImportError, RuntimeError) as error:  # RuntimeError: built for another torch
        pytest.skip(f"torchvision cannot be imported: {error}")
    return optical_flow


@pytest.mark.parametrize("size", ["raft_small", "raft_large"])
def test_flows_come_from_the_weights_in_the_file(models: Any, size: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = getattr(models, size)(weights=None).eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    frames = scene(7, speed_px=2.0)  # 108 x 192: too small for RAFT, which gets 128 x 232
    flows = raft_flows(frames, tmp_path / "raft.pth")
    assert len(flows) == 6 and all(flow.shape == (108, 192, 2) for flow in flows)
    pictures = torch.from_numpy(frames[4:6].copy()).permute(0, 3, 1, 2) / 127.5 - 1
    pictures = torch.nn.functional.interpolate(pictures, (128, 232), mode="bilinear")
    with torch.inference_mode():
        whole = network(pictures[1:], pictures[:1])[-1]
    expected = torch.nn.functional.interpolate(whole, (108, 192), mode="bilinear")[0]
    expected = expected * torch.tensor([192 / 232, 108 / 128]).view(2, 1, 1)
    np.testing.assert_allclose(flows[4], expected.permute(1, 2, 0).numpy(), atol=0.05, rtol=0.01)
    part = analyse(frames, 3, tmp_path / "raft.pth")
    assert len(part.flows) == 2 and np.isfinite(np.stack(part.flows)).all()


def test_a_file_without_such_weights_is_one_sentence(models: Any, tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<html>404</html>")
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pth")
    for name in ("page.pth", "other.pth", "none.pth"):
        with pytest.raises(
            LoopAnimateError, match="has no weights of torchvision's raft"
        ) as raised:
            raft_flows(scene(3), tmp_path / name)
        assert "\n" not in str(raised.value)


def test_without_torchvision_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision", None)
    with pytest.raises(LoopAnimateError, match=r"measure\.raft needs torchvision"):
        raft_flows(scene(3), tmp_path / "raft.pth")
