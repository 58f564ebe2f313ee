"""Time of one guided denoising step: LoopUNet against diffusers' UNetMotionModel.

Both have the same weights, clip, timestep and prompts, and two guidance branches. diffusers' model runs
as in its own pipeline: both branches in one batch, the prompt repeated for every frame, text in every
block. The other rows switch the exact speed-ups of LoopUNet on one by one.

    python benchmarks/unet_speed.py [--device cuda] [--channels 64 128 256 256] [--frames 16] [--size 16]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from torch import Tensor

from loopanimate_core.models import LoopUNet, LoopUNetConfig, SpeedUps

PLAIN = SpeedUps(one_token=False, fold_frames=False, shared_down=False, shared_skips=False)


def main() -> None:
    options = parse_arguments()
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    device = torch.device(options.device)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    channels, levels = tuple(options.channels), len(options.channels) - 1
    sizes = {
        "block_out_channels": channels,
        "layers_per_block": 2,
        "cross_attention_dim": 768,
        "num_attention_heads": 8,
        "motion_num_attention_heads": 8,
        "norm_num_groups": 32,
    }
    loop = LoopUNet(LoopUNetConfig(**sizes)).to(device, dtype).eval()
    same_routing = LoopUNet(
        LoopUNetConfig(**sizes, routing=("text", "text", "text"), norm_scope="clip")
    )
    peer: Any = UNetMotionModel(
        in_channels=9,
        down_block_types=("CrossAttnDownBlockMotion",) * levels + ("DownBlockMotion",),
        up_block_types=("UpBlockMotion",) + ("CrossAttnUpBlockMotion",) * levels,
        use_motion_mid_block=False,
        motion_max_seq_length=36,
        **sizes,
    )
    peer = peer.to(device, dtype).eval()
    same_routing = same_routing.to(device, dtype).eval()
    peer.load_state_dict(loop.state_dict(), strict=False)
    same_routing.load_state_dict(loop.state_dict())

    frames, size = options.frames, options.size
    sample = torch.randn(1, 9, frames, size, size, device=device, dtype=dtype)
    timestep = torch.tensor(500.0, device=device)
    image = torch.randn(1, 1, 768, device=device, dtype=dtype)
    text = torch.randn(2, 77, 768, device=device, dtype=dtype)

    def run_peer() -> Tensor:
        return peer(
            sample.repeat(2, 1, 1, 1, 1), timestep, text.repeat_interleave(frames, 0)
        ).sample

    def run_loop(speedups: SpeedUps, prepared: bool = False) -> Callable[[], Tensor]:
        def run() -> Tensor:
            loop.speedups = speedups
            return loop(sample, timestep, image, keys_values if prepared else text)

        return run

    loop.speedups = SpeedUps()
    keys_values = loop.prepare_text(text)
    rows: dict[str, Callable[[], Tensor]] = {
        "UNetMotionModel (diffusers)": run_peer,
        "LoopUNet, every speed-up off": run_loop(PLAIN),
        "  only one-token image attention": run_loop(replace(PLAIN, one_token=True)),
        "  only frames folded into queries": run_loop(replace(PLAIN, fold_frames=True)),
        "  only text projected once per prompt": run_loop(
            replace(PLAIN, fold_frames=True), prepared=True
        ),
        "  only shared down path": run_loop(replace(PLAIN, shared_down=True)),
        "  only shared down path and skips": run_loop(
            replace(PLAIN, shared_down=True, shared_skips=True)
        ),
        "LoopUNet, all": run_loop(SpeedUps(), prepared=True),
    }
    same_routing.speedups = PLAIN
    error = relative_error(same_routing(sample, timestep, image, text), run_peer())
    all_on = relative_error(rows["LoopUNet, all"](), rows["LoopUNet, every speed-up off"]())
    times = measure(rows, options.rounds, device)

    name = (
        torch.cuda.get_device_name()
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} thread(s)"
    )
    print(f"{name}, {dtype}, channels {channels}, {frames} frames, {size} x {size} latents, guided")
    print(f"equal to the peer with the peer's routing: relative error {error:.1e}")
    print(f"all speed-ups against none:                relative error {all_on:.1e}\n")
    print(f"{'':38}{'ms':>9}{'÷ peer':>9}")
    for row, seconds in times.items():
        print(f"{row:38}{1e3 * seconds:9.1f}{seconds / times['UNetMotionModel (diffusers)']:9.2f}")


def measure(
    rows: dict[str, Callable[[], Tensor]], rounds: int, device: torch.device
) -> dict[str, float]:
    """The best time of each row; the rows take turns, so that a slow moment affects all of them."""
    best = dict.fromkeys(rows, float("inf"))
    for _ in range(rounds + 1):  # one more round to warm up
        for name, run in rows.items():
            best[name] = min(best[name], seconds_of(run, device))
    return best


def seconds_of(run: Callable[[], Tensor], device: torch.device) -> float:
    """CPU time of the process on a CPU, because others may share it; wall time on a GPU."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = clock()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def relative_error(a: Tensor, b: Tensor) -> float:
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels", type=int, nargs="+", default=[64, 128, 256, 256])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=16, help="latent side in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
