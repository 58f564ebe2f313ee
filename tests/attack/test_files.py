"""Files that are damaged, or made to do harm: each gives a right result or one sentence, and never runs code."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import sqlite3
import struct
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from attacking import ODD_VALUES, Counters, damaged, odd, seeds
from PIL import Image
from toy_bundle import build_toy_bundle

from loopanimate_core.batch import BatchState
from loopanimate_core.bundle import bundle_info
from loopanimate_core.bundle.components import PARTS, build_on_meta
from loopanimate_core.bundle.lora import ALPHA, DOWN, UP, kohya_name, read_lora
from loopanimate_core.bundle.tensorfile import read_header, read_tensors, write_tensors
from loopanimate_core.check import check_file
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import load_picture
from loopanimate_core.picture.opening import formats
from loopanimate_core.schedule import alphas_cumprod
from loopanimate_core.video import write_video
from loopanimate_core.video.read import stream_video

Use = Callable[[Path], object]


def attack(counters: Counters, name: str, path: Path, content: bytes, use: Use) -> None:
    """One file: `use` returns, or raises the error for users; anything else is counted."""
    path.write_bytes(content)
    with counters.case(name) as fail:
        try:
            use(path)
        except LoopAnimateError as error:
            text = str(error)
            if not text or len(text) > 5000 or text.endswith("()"):
                fail(f"says {text[:100]!r}")


def picture_of(kind: str) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    if kind == "I;16":
        image, kind = Image.fromarray(noise[..., 0].astype(np.uint16) * 250), "PNG"
    image.save(file, kind)
    return file.getvalue()


def test_pictures(tmp_path: Path) -> None:
    def use(path: Path) -> None:
        rgb = load_picture(path).rgb
        assert bool(rgb.isfinite().all()) and 0 <= float(rgb.min()) <= float(rgb.max()) <= 1

    counters = Counters("pictures")
    kinds = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "I;16", "PPM", "TGA", "ICO", "AVIF")
    whole = {kind: picture_of(kind) for kind in kinds}
    for number in seeds(220):
        random = Random(number)
        kind = random.choice(kinds)
        content = damaged(whole[kind], random)
        attack(counters, f"{kind} {number}", tmp_path / "x.png", content, use)
    counters.require_zeros()


def test_animations_and_videos(tmp_path: Path) -> None:
    def use(path: Path) -> None:
        pictures, fps = stream_video(path)
        assert math.isfinite(fps) and fps > 0
        assert sum(1 for _ in zip(pictures, range(500), strict=False)) > 0

    counters = Counters("animations and videos")
    frames = torch.rand(6, 32, 32, 3, generator=torch.Generator().manual_seed(0))
    whole = {}
    for suffix in (".webp", ".apng", ".gif", ".mp4", ".webm"):
        path = write_video(frames, tmp_path / f"whole{suffix}", fps=10, repeats=1)
        whole[suffix] = path.read_bytes()
    for number in seeds(60):
        random = Random(number)
        suffix = random.choice((".webp", ".apng", ".gif", ".gif", ".mp4", ".webm"))
        content = damaged(whole[suffix], random)
        attack(counters, f"{suffix} {number}", tmp_path / f"x{suffix}", content, use)
    counters.require_zeros()


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(header: Any, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + tensors


def test_bundles(tmp_path: Path, toy_bundle_path: Path) -> None:
    def use(path: Path) -> None:
        """All that is done with a config before the first tensor is read."""
        config = bundle_info(path).config
        if config == whole:
            return
        for part in PARTS:
            build_on_meta(part, getattr(config, part))
        assert bool(alphas_cumprod(config.schedule).isfinite().all())
        assert config.vae_scaling_factor and config.pixels_per_latent
        assert len(config.all_shapes) and config.window_frames(15)

    counters = Counters("bundles")
    whole = bundle_info(toy_bundle_path).config
    header, tensors = header_of(toy_bundle_path)
    config = json.loads(header["__metadata__"]["config"])
    tensors = tensors[:0]  # `bundle_info` reads none; the sizes are made to fit
    for entry in header.values():
        if "data_offsets" in entry:
            entry["data_offsets"] = [0, 0]
    for number in seeds(110):
        random = Random(number)
        changed = dict(header)
        strings = dict(header["__metadata__"])
        if number % 3:
            strings["config"] = json.dumps(odd(config, random))
        elif number % 2:
            strings = odd(strings, random)
        changed["__metadata__"] = strings
        if number % 5 == 0:
            name = random.choice([name for name in header if name != "__metadata__"])
            changed[name] = odd(header[name], random)
        content = with_header(changed, tensors)
        if number % 7 == 0:
            content = damaged(content, random)
        attack(counters, f"bundle {number}", tmp_path / "x.safetensors", content, use)
    for text in (b'{"a":' * 100_000, b"{}", b"[]", b"null", b'{"a": {"dtype": 1}}'):
        content = struct.pack("<Q", len(text)) + text
        attack(counters, f"header {text[:20]!r}", tmp_path / "x.safetensors", content, read_header)
    counters.require_zeros()


def test_loras(tmp_path: Path) -> None:
    counters = Counters("LoRAs")
    toy_unet = build_toy_bundle().unet
    layer = next(n for n, m in toy_unet.named_modules() if isinstance(m, torch.nn.Linear))
    weight = toy_unet.get_parameter(f"{layer}.weight")
    name = kohya_name(layer)
    whole = {
        name + DOWN: torch.ones(2, weight.shape[1]),
        name + UP: torch.ones(weight.shape[0], 2),
        name + ALPHA: torch.tensor(2.0),
    }

    def use(path: Path) -> None:
        for update in read_lora(path, toy_unet).values():
            assert update.rank > 0 and math.isfinite(update.alpha)
            assert bool(update.delta().isfinite().all())

    def variant(random: Random) -> dict[str, torch.Tensor]:
        tensors = dict(whole)
        key = random.choice(list(tensors))
        match random.randrange(6):
            case 0:
                del tensors[key]
            case 1:
                tensors[key] = torch.empty(0, 3)
            case 2:
                tensors[key] = torch.tensor(3.0)
            case 3:
                tensors[name + ".dora_scale"] = torch.ones(1)
            case 4:
                tensors[key] = torch.ones(2, 2, 2)
            case 5:
                tensors[key[:-1]] = tensors.pop(key)
        return tensors

    path = tmp_path / "x.safetensors"
    for number in seeds(40):
        random = Random(number)
        write_tensors(path, variant(random), {})
        content = path.read_bytes()
        if number % 2:  # NaN and infinite values, which are not written
            content = content[:-4] + struct.pack("<f", random.choice((math.nan, math.inf)))
        attack(counters, f"LoRA {number}", path, content, use)
    counters.require_zeros()


class Evil:
    """Unpickling it without care makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.canary}",)


def test_pickles(tmp_path: Path) -> None:
    counters = Counters("pickles")
    canary = tmp_path / "executed"
    legacy, modern = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.ones(3)}, legacy, _use_new_zipfile_serialization=False)
    torch.save({"state_dict": {"a": torch.ones(3)}}, modern)
    evil = io.BytesIO()
    torch.save({"a": torch.ones(3), "b": Evil(canary)}, evil)
    whole = (legacy.getvalue(), modern.getvalue(), evil.getvalue(), pickle.dumps(Evil(canary)))
    for number in seeds(200, 3401):
        random = Random(number)
        content = whole[number % 4]
        if number >= 4:
            content = damaged(content, random)
        attack(counters, f"pickle {number}", tmp_path / "x.ckpt", content, read_tensors)
        if canary.exists():
            counters.code_executed += 1
            canary.unlink()
    counters.require_zeros()


def test_states(tmp_path: Path) -> None:
    counters = Counters("states of batches")
    path = tmp_path / "x.sqlite"

    def fresh() -> None:
        path.unlink(missing_ok=True)
        with closing(BatchState(path, "job")) as state:
            from loopanimate_core.batch import Record

            state.save(Record("a.png", 3, 4, results=("a.mp4",)))

    def use(path: Path) -> None:
        with closing(BatchState(path, "job")) as state:
            for record in state.records([]).values():
                state.save(record)

    fresh()
    whole = path.read_bytes()
    for number in seeds(80, 781, 2155):
        random = Random(number)
        if number % 2:
            attack(counters, f"state {number}", path, damaged(whole, random), use)
            continue
        fresh()
        columns = ("status", "results", "saved", "expected", "attempts", "server", "size_bytes")
        with (
            closing(sqlite3.connect(path)) as db,
            suppress(sqlite3.Error, UnicodeEncodeError, OverflowError),
        ):
            value = random.choice(ODD_VALUES)
            shown = value if isinstance(value, (str, int, float)) else json.dumps(value)
            with db:
                db.execute(f"UPDATE pictures SET {random.choice(columns)} = ?", (shown,))
        attack(counters, f"state {number}", path, path.read_bytes(), use)
    counters.require_zeros()


def test_bombs_and_special_files(tmp_path: Path) -> None:
    """Small files that ask for much, and things that are not files."""
    counters = Counters("bombs and special files")
    still = Image.new("P", (20, 20))
    durations = [10, 655350, *[10] * 4]
    frames = [Image.new("L", (20, 20), 40 * shade) for shade in range(len(durations))]
    frames[0].save(
        tmp_path / "slow.gif", save_all=True, append_images=frames[1:], duration=durations
    )
    file = io.BytesIO()
    still.save(file, "PNG")
    huge = bytearray(file.getvalue())
    huge[16:24] = struct.pack(">II", 60_000, 60_000)
    huge[29:33] = struct.pack(">I", zlib.crc32(bytes(huge[12:29])))
    attack(counters, "huge PNG", tmp_path / "huge.png", bytes(huge), load_picture)
    attack(counters, "huge animation", tmp_path / "huge.apng", bytes(huge), check_file)
    content = (tmp_path / "slow.gif").read_bytes()
    attack(counters, "durations", tmp_path / "slow.gif", content, check_file)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n%%EOF\n"
    attack(counters, "EPS", tmp_path / "eps.png", eps, load_picture)
    assert not {"EPS", "WMF", "PDF", "MPEG"} & set(formats()), "readers that start programs"
    sparse = tmp_path / "sparse.png"
    with sparse.open("wb") as sink:
        sink.truncate(40 * 2**30)
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    uses: tuple[Use, ...] = (load_picture, check_file, bundle_info, read_tensors)
    for path in (
        sparse,
        tmp_path / "pipe.mp4",
        tmp_path / "zero.png",
        tmp_path / "loop.png",
        tmp_path,
    ):
        for use in uses:
            with counters.case(f"{use} on {path.name}") as fail:
                try:
                    use(path)
                    fail("is accepted")
                except LoopAnimateError:
                    pass
    counters.require_zeros()
