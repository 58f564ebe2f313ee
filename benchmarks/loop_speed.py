"""A whole loop against diffusers' AnimateDiffPipeline and PIAPipeline, with networks of the same sizes.

Frames, resolution, scheduler, steps and guidance are the same, weights are random, prompts are embeddings (no text
encoder runs). The systems take turns; each figure is the median of its rounds. On a CPU, which others may share,
seconds are those of the process, on a GPU those of the clock.

    python benchmarks/loop_speed.py                                       # small, on the CPU
    python benchmarks/loop_speed.py --device cuda --channels 320 640 1280 1280 --vae 128 256 512 512 \\
        --frames 35 --size 512 --steps 25                                 # full size
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_motion_model import UNetMotionModel
from diffusers.pipelines.animatediff.pipeline_animatediff import AnimateDiffPipeline
from diffusers.pipelines.deprecated.pia.pipeline_pia import PIAPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils.logging import set_verbosity_error
from torch import Tensor

from loopanimate_core.bundle import Bundle, BundleConfig
from loopanimate_core.bundle.components import vae_settings
from loopanimate_core.conditions import LoopConditions
from loopanimate_core.detail import DetailSettings, transfer
from loopanimate_core.encoders.tokenizer import build_tokenizer
from loopanimate_core.encoders.vae import decode_latents, encode_frames
from loopanimate_core.models import LoopUNet, LoopUNetConfig
from loopanimate_core.picture.images import Picture
from loopanimate_core.pipeline import LoopAnimatePipeline
from loopanimate_core.schedule import ScheduleConfig
from loopanimate_core.settings import resolve_settings
from loopanimate_core.video import write_video

GUIDANCE = 7.5
WIDTH = 768  # of the prompts' embeddings
LOOP, PIA = "LoopAnimate", "LoopAnimate, PIA's conditioning"
PEERS = ("AnimateDiffPipeline", "PIAPipeline")


@dataclass
class Bench:
    """The networks and inputs that all systems share."""

    options: argparse.Namespace
    device: torch.device
    dtype: torch.dtype
    vae: Any
    picture: Tensor
    text: Tensor
    clock: Callable[[], float] = field(init=False)

    def __post_init__(self) -> None:
        self.clock = time.process_time if self.device.type == "cpu" else time.perf_counter

    def seconds(self, run: Callable[[], Any]) -> float:
        self.wait()
        start = self.clock()
        run()
        self.wait()
        return self.clock() - start

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def main() -> None:
    options = parse_arguments()
    set_verbosity_error()
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    bench = make_bench(options)
    systems = make_systems(bench)
    rounds = medians_of(bench, {name: run for name, (run, _) in systems.items()})
    parts = {name: parts_of() for name, (_, parts_of) in systems.items() if parts_of}
    found = {
        "machine": machine(bench),
        "settings": vars(options) | {"out": str(options.out), "guidance": GUIDANCE},
        "seconds": rounds,
        "relative_to_AnimateDiffPipeline": {k: v / rounds[PEERS[0]] for k, v in rounds.items()},
        "relative_to_PIAPipeline": {k: v / rounds[PEERS[1]] for k, v in rounds.items()},
        "parts_of_a_loop_s": parts,
        "startup_s": startup_seconds(options.rounds),
        "memory_mb": memory(bench, {name: run for name, (run, _) in systems.items()}),
    }
    print_tables(found)
    if not torch.cuda.is_available():
        print("\nGPU rows: none, because this computer has no GPU that torch can use")
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=2, default=str) + "\n", encoding="utf-8")


def make_bench(options: argparse.Namespace) -> Bench:
    device = torch.device(options.device)
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    levels = len(options.vae)
    build: Any = AutoencoderKL
    vae = build(
        block_out_channels=tuple(options.vae),
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=2,
    )
    return Bench(
        options,
        device,
        dtype,
        vae.to(device, dtype).eval(),
        torch.rand(options.size, options.size, 3),
        torch.randn(2, 77, WIDTH, device=device, dtype=dtype),
    )


def make_systems(
    bench: Bench,
) -> dict[str, tuple[Callable[[], Any], Callable[[], dict[str, float]] | None]]:
    """For each system a function that makes a clip, and for ours one that times its parts."""
    unets = {
        LOOP: loop_unet(bench, ("image", "text", "text"), "per_frame"),
        PIA: loop_unet(bench, ("text",) * 3, "clip"),
    }
    state = unets[PIA].state_dict()
    made: dict[str, Any] = {}
    for name, channels in (("AnimateDiffPipeline", 4), ("PIAPipeline", 9)):
        peer = peer_unet(bench, channels)
        weights = dict(state)
        weights["conv_in.weight"] = weights["conv_in.weight"][:, :channels]
        peer.load_state_dict(weights, strict=False)
        made[name] = (peer_loop(bench, name, peer), None)
    for name, conditioning in ((LOOP, "loop"), (PIA, "pia")):
        ours = OurLoop(bench, unets[name], conditioning)
        made[name] = (ours.run, ours.parts)
    return made


def sizes(bench: Bench) -> dict[str, Any]:
    return {
        "block_out_channels": tuple(bench.options.channels),
        "layers_per_block": 2,
        "cross_attention_dim": WIDTH,
        "num_attention_heads": 8,
        "motion_num_attention_heads": 8,
        "norm_num_groups": 32,
    }


def loop_unet(bench: Bench, routing: tuple[str, ...], norm_scope: str) -> LoopUNet:
    config = LoopUNetConfig(**sizes(bench), routing=routing, norm_scope=norm_scope)  # type: ignore[arg-type]
    return LoopUNet(config).to(bench.device, bench.dtype).eval()


def peer_unet(bench: Bench, channels: int) -> Any:
    levels = len(bench.options.channels) - 1
    unet: Any = UNetMotionModel(
        in_channels=channels,
        down_block_types=("CrossAttnDownBlockMotion",) * levels + ("DownBlockMotion",),
        up_block_types=("UpBlockMotion",) + ("CrossAttnUpBlockMotion",) * levels,
        use_motion_mid_block=False,
        motion_max_seq_length=36,
        **sizes(bench),
    )
    return unet.to(bench.device, bench.dtype).eval()


def peer_loop(bench: Bench, name: str, unet: Any) -> Callable[[], Any]:
    """A run of one of diffusers' pipelines, from the picture to decoded frames."""
    scheduler: Any = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False
    )
    kind: Any = {"AnimateDiffPipeline": AnimateDiffPipeline, "PIAPipeline": PIAPipeline}[name]
    pipeline = kind(
        vae=bench.vae,
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        motion_adapter=None,
        scheduler=scheduler,
    )
    pipeline.set_progress_bar_config(disable=True)
    image = bench.picture.permute(2, 0, 1)[None]
    given = {"image": image} if name == "PIAPipeline" else {}

    def run() -> Any:
        return pipeline(
            **given,
            prompt_embeds=bench.text[:1],
            negative_prompt_embeds=bench.text[1:],
            num_frames=bench.options.frames,
            num_inference_steps=bench.options.steps,
            guidance_scale=GUIDANCE,
            height=bench.options.size,
            width=bench.options.size,
            output_type="pt",
        )

    return run


class OurLoop:
    """LoopAnimate from the picture to decoded frames: one frame less plays than the network sees."""

    def __init__(self, bench: Bench, unet: LoopUNet, conditioning: str) -> None:
        self.bench, options = bench, bench.options
        config = BundleConfig(
            unet=unet.config,
            vae=vae_settings(bench.vae.config, "AutoencoderKL"),
            text_encoder={"hidden_size": WIDTH, "vocab_size": 49_408},
            image_encoder={} if conditioning == "pia" else {"projection_dim": WIDTH},
            schedule=ScheduleConfig("linear"),
            frames=(options.frames | 1,),
            conditioning=conditioning,
        )
        self.pipeline = LoopAnimatePipeline(
            Bundle(config, unet, bench.vae, None, None, build_tokenizer(config.tokenizer))
        )
        self.settings = resolve_settings(
            config,
            seed=0,
            scheduler="ddim",
            steps=options.steps,
            guidance=GUIDANCE,
            frames=options.frames,
            height_px=options.size,
            width_px=options.size,
        )

    def encode(self) -> LoopConditions:
        bench = self.bench
        z_still = encode_frames(bench.vae, bench.picture[None].to(bench.device))[:, :, 0]
        return LoopConditions(
            z_still=z_still,
            m_still=torch.ones_like(z_still[:, :1]),
            image_embeds=bench.text[:1, :1],
            text_embeds=bench.text[:1],
            negative_embeds=bench.text[1:],
            frames=bench.options.frames,
            conditioning=self.pipeline.bundle.config.conditioning,
        )

    def run(self) -> Tensor:
        latents = self.pipeline.sample(self.encode(), self.settings)
        return decode_latents(self.bench.vae, latents)

    def parts(self) -> dict[str, float]:
        """Seconds of each part of one loop; `detail` and `write` are not in the whole loops above."""
        bench, found = self.bench, {}
        conditions = self.encode()
        latents = self.pipeline.sample(conditions, self.settings)
        frames = decode_latents(bench.vae, latents).float().cpu()
        found["encode"] = bench.seconds(self.encode)
        sampling = bench.seconds(lambda: self.pipeline.sample(conditions, self.settings))
        found["step"] = sampling / bench.options.steps
        found["decode"] = bench.seconds(lambda: decode_latents(bench.vae, latents))
        still, mask = Picture(bench.picture), torch.zeros(bench.picture.shape[:2])
        mask[: len(mask) // 2] = 1.0
        settings = DetailSettings("auto", 0.0, 0.12, "original", None, False)

        def draw() -> list[Tensor]:
            return list(transfer(frames, still, mask, settings, frames_fps=8.0))

        found["detail"] = bench.seconds(draw)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "loop.mp4"
            found["write"] = bench.seconds(lambda: write_video(frames, path, fps=8))
        return found


def medians_of(bench: Bench, runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each system; they take turns, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(bench.options.rounds + 1):
        for name, run in runs.items():
            seconds = bench.seconds(run)
            if round_:
                times[name].append(seconds)
    return {name: statistics.median(found) for name, found in times.items()}


def memory(bench: Bench, runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """On a GPU the peak of each system; on a CPU the peak of the whole process, which systems share."""
    if bench.device.type != "cuda":
        unit = 1e3 if sys.platform != "darwin" else 1e6  # kilobytes on Linux, bytes on macOS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        return {"peak of the process, all systems": peak}
    found = {}
    for name, run in runs.items():
        torch.cuda.reset_peak_memory_stats()
        run()
        found[name] = torch.cuda.max_memory_allocated() / 1e6
    return found


def startup_seconds(rounds: int) -> dict[str, float]:
    """CPU seconds of new Python processes up to a point of `loopanimate animate`."""
    points = {
        "import torch": "import torch",
        "import the pipeline": "import loopanimate_core.pipeline",
        "read the mini": "import loopanimate_core as l; l.LoopAnimatePipeline.from_bundle()",
    }
    print_time = "; import time; print(time.process_time())"
    found: dict[str, list[float]] = {name: [] for name in points}
    for _ in range(rounds):
        for name, code in points.items():
            command = [sys.executable, "-c", code + print_time]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name].append(float(output.splitlines()[-1]))
    return {name: statistics.median(times) for name, times in found.items()}


def machine(bench: Bench) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if bench.device.type == "cuda" else None
    seconds = "of the process" if gpu is None else "of the clock"
    return {
        "device": gpu or f"CPU, {torch.get_num_threads()} thread(s)",
        "dtype": str(bench.dtype),
        "torch": torch.__version__,
        "seconds": seconds,
    }


def print_tables(found: dict[str, Any]) -> None:
    chosen = found["settings"]
    print(
        f"{found['machine']['device']}, {found['machine']['dtype']}, channels {chosen['channels']},"
        f" {chosen['frames']} frames of {chosen['size']} px, {chosen['steps']} steps, guided;"
        f" seconds {found['machine']['seconds']}, medians of {chosen['rounds']}\n"
    )
    print(f"{'whole loop':34}{'s':>9}{'÷ AnimateDiff':>15}{'÷ PIA':>9}")
    for name, seconds in found["seconds"].items():
        ratios = (found[f"relative_to_{peer}"][name] for peer in PEERS)
        animatediff, pia = ratios
        print(f"{name:34}{seconds:9.2f}{animatediff:15.2f}{pia:9.2f}")
    for name, parts in found["parts_of_a_loop_s"].items():
        print(f"\n{name}: " + ", ".join(f"{part} {s:.2f} s" for part, s in parts.items()))
    print("\nstart-up: " + ", ".join(f"{p} {s:.2f} s" for p, s in found["startup_s"].items()))
    print("memory: " + ", ".join(f"{name} {mb:,.0f} MB" for name, mb in found["memory_mb"].items()))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--channels", type=int, nargs="+", default=[32, 64, 128, 128])
    parser.add_argument("--vae", type=int, nargs="+", default=[32, 32, 64, 64])
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=128, help="side of the picture in pixels")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    main()
