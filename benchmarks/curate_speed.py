"""How many clips a second `loopanimate-train curate` measures, with one and with several workers.

    python benchmarks/curate_speed.py --clips 200 --workers 1 2 --folder work/curate-speed

The clips are drawn: a disc in front of coloured noise, 320 x 180, 150 frames, H.264; every tenth is broken. Printed are
clips a second on the clock, and the CPU seconds of the workers per clip, which do not depend on what else runs.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from loopanimate_training.config import resolve_curation
from loopanimate_training.curate.driver import count_rows, decide, list_rows, measure_all

WIDTH_PX, HEIGHT_PX, FRAMES = 320, 180, 150


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, default=Path("work/curate-speed"))
    options = parser.parse_args()
    clips = options.folder / "clips"
    draw_clips(clips, options.clips)
    config = resolve_curation({"data": {"source": "videos", "path": clips}})
    rows, rates = list_rows(config), []
    for workers in options.workers:
        table = options.folder / f"{workers}.parquet"
        shutil.rmtree(table.with_suffix(".scores"), ignore_errors=True)
        clock_s, used_s = time.monotonic(), children_s()
        outcomes = measure_all(rows, config, table, workers=workers)
        clock_s, used_s = time.monotonic() - clock_s, children_s() - used_s
        rates.append(len(rows) / clock_s)
        print(
            f"{workers} workers: {rates[-1]:.2f} clips/s, {rates[-1] / rates[0]:.2f} times the first, "
            f"{used_s / len(rows):.2f} CPU s per clip"
        )
        print("\n".join(count_rows(decide(rows, outcomes, config))))


def draw_clips(folder: Path, count: int) -> None:
    """Write what is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number:05}.mp4"
        path.with_suffix(".txt").write_text("a ball swinging")
        if path.exists():
            continue
        if number % 10 == 9:
            path.write_text("<html>404</html>")
            continue
        write_video(path, number)


def write_video(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    small = rng.integers(60, 140, (HEIGHT_PX // 15, WIDTH_PX // 15, 3), dtype=np.uint8)
    backdrop = cv2.resize(small, (WIDTH_PX, HEIGHT_PX), interpolation=cv2.INTER_CUBIC)
    speed, colour = rng.uniform(0.03, 0.12), tuple(map(int, rng.integers(150, 255, 3)))
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = WIDTH_PX, HEIGHT_PX, "yuv420p"
        for number in range(FRAMES):
            picture = backdrop.copy()
            x = round(WIDTH_PX / 2 + 60 * np.sin(speed * number))
            cv2.circle(picture, (x, HEIGHT_PX // 2), 40, colour, -1, cv2.LINE_AA)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def children_s() -> float:
    """CPU seconds of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
