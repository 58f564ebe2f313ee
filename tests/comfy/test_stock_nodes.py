"""Every row of docs/stock-nodes.md on a real server: nothing is ignored, nothing fails raw, nothing is noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from comfy_graphs import pictures
from comfy_server import PACK, ComfyServer, PromptError
from stock_nodes import CHANGES, LATENTS, REFUSED, ROWS, SAME, StockNode, base_graph, table


@pytest.fixture(scope="module")
def plain(server: ComfyServer) -> Callable[[int], list[bytes]]:
    """The loop without a node, at a size in pixels."""
    return cache(lambda side: pictures(server, server.run(base_graph(side))))


def spread(frames: list[bytes]) -> float:
    """Mean over frames of the standard deviation of their pixels, in grey levels."""
    return float(np.mean([np.frombuffer(frame, np.uint8).std() for frame in frames]))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_stock_node(
    server: ComfyServer, plain: Callable[[int], list[bytes]], row: StockNode
) -> None:
    if row.name not in server.get(f"/object_info/{row.name.replace(' ', '%20')}"):
        pytest.skip("this version of ComfyUI does not have the node")
    graph = row.build(base_graph(row.side))
    if row.effect == REFUSED:
        with pytest.raises(PromptError, match=row.sentence):
            server.run(graph)
        return
    frames, without = pictures(server, server.run(graph)), plain(row.side)
    assert len(frames) == row.frames
    assert spread(frames) < 2 * spread(without) + 10, "noise"
    if row.effect == SAME:
        difference = [
            np.abs(np.frombuffer(a, np.uint8).astype(int) - np.frombuffer(b, np.uint8)).max()
            for a, b in zip(frames, without, strict=True)
        ]
        assert max(difference) <= 1
    elif row.effect == CHANGES:
        assert frames != without
    if row.effect in (SAME, CHANGES):
        assert frames[0] == frames[-1], "the loop is open"


def test_repeated_latents_are_loops_of_their_own(server: ComfyServer) -> None:
    (row,) = (row for row in ROWS if row.name == "RepeatLatentBatch")
    frames = pictures(server, server.run(row.build(base_graph())))
    first, second = frames[:15], frames[15:]
    assert first[0] == first[-1] and second[0] == second[-1] and first != second


def test_a_second_pass_plays_as_a_loop(server: ComfyServer) -> None:
    (row,) = (row for row in ROWS if row.name == "LatentUpscaleBy")
    frames = [
        np.frombuffer(frame, np.uint8).astype(float)
        for frame in pictures(server, server.run(row.build(base_graph())))
    ]
    steps = [np.abs(a - b).mean() for a, b in pairwise([*frames, frames[0]])]
    assert steps[-1] < 2 * max(steps[:-1])


def test_the_documentation_has_the_table() -> None:
    assert len(ROWS) >= 40
    assert {row.effect for row in ROWS} == {CHANGES, SAME, LATENTS, REFUSED}
    assert table() in (PACK / "docs/stock-nodes.md").read_text(encoding="utf-8")
