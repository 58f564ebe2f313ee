"""The loop check: each fault is reported with its reason, and seamless loops pass from any start frame."""

import json
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loopanimate_core.check import (
    REASONS,
    LoopReport,
    LoopThresholds,
    check_file,
    check_loop,
    measures,
)
from loopanimate_core.check.chart import seam_chart
from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import Picture
from loopanimate_training.alss import loop_indices

pytestmark = pytest.mark.numeric

SIDE_PX = 96
TAU = 2 * math.pi


def sticker(x: float = 0, y: float = 0, size: float = 1, angle: float = 0) -> torch.Tensor:
    """`[96, 96, 3]`: an egg with two eyes on a gradient; x and y in half-widths."""
    rows, columns = torch.meshgrid(*[torch.linspace(-1, 1, SIDE_PX)] * 2, indexing="ij")
    u, v = (columns - x) / size, (rows - y) / size
    cos, sin = math.cos(angle), math.sin(angle)
    u, v = cos * u + sin * v, -sin * u + cos * v

    def inside(distance: torch.Tensor) -> torch.Tensor:
        return (distance * SIDE_PX / 2 + 0.5).clamp(0, 1)[..., None]

    body = inside(0.36 - torch.sqrt(u**2 + (1.3 * v) ** 2))
    eyes = inside(0.08 - torch.sqrt((u.abs() - 0.14) ** 2 + (v + 0.1) ** 2))
    picture = torch.stack([0.9 - 0.1 * rows, 0.8 - 0.1 * columns, 0.75 + 0.1 * rows], -1)
    picture = picture * (1 - body) + torch.tensor([0.9, 0.3, 0.2]) * body
    return picture * (1 - eyes) + torch.tensor([0.1, 0.1, 0.15]) * eyes


def clip(path, frames: int = 34) -> torch.Tensor:
    """`[P, 96, 96, 3]`: the sticker along `path(t)`, t in 0..1 without the end."""
    return torch.stack([sticker(*path(i / frames)) for i in range(frames)])


def circle(reach: float = 0.16):
    return lambda t: (reach * math.cos(TAU * t), reach * math.sin(TAU * t))


def bob(reach: float = 0.16, phase: float = 0.0, cycles: int = 1):
    return lambda t: (0.0, reach * math.sin(TAU * cycles * t + phase))


def line(t: float):
    return (-0.4 + 0.6 * t, 0.2 * t)


TRUE_LOOPS = {
    "circle, small": circle(0.03),
    "circle": circle(),
    "circle, large": circle(0.35),
    "bob, small": bob(0.04),
    "bob, large": bob(0.35),
    "bob, cut at its turning frame": bob(phase=math.pi / 2),
    "bob, cut between two equal frames": bob(phase=math.pi / 2 - TAU / 68),
    "bob, twice": bob(cycles=2, phase=1.0),
    "rock": lambda t: (0, 0, 1, 0.3 * math.sin(TAU * t)),
    "spin": lambda t: (0, 0, 1, TAU * t),
    "pulse": lambda t: (0, 0, math.exp(0.2 * math.sin(TAU * t))),
    "eight": lambda t: (0.2 * math.sin(TAU * t), 0.1 * math.sin(2 * TAU * t)),
}


@pytest.mark.parametrize("name", TRUE_LOOPS)
def test_seamless_loops_pass(name):
    report = check_loop(clip(TRUE_LOOPS[name]), fps=8)
    assert report.passed, report.summary
    assert report.verdict == "seamless"
    assert report.duration_s == pytest.approx(34 / 8)


def test_the_summary_compares_the_seam_with_what_the_verdict_does():
    """A swing that rests at its ends and begins in mid-swing: the seam is fast, and so are the steps beside it."""
    swing = lambda t: (0.2 * math.tanh(4 * math.sin(TAU * t)), 0)  # noqa: E731
    report = check_loop(clip(swing))
    assert report.passed and report.seam_ratio is not None and report.seam_ratio > 2
    assert f"{report.seam_jump:.2f} times those beside it" in report.summary
    assert f"{report.seam_ratio:.2f} times" not in report.summary


@settings(max_examples=12, deadline=None)
@given(
    waves=st.tuples(*[st.floats(0, TAU)] * 4),
    reach=st.floats(0.08, 0.3),
    frames=st.integers(24, 40),
    shift=st.integers(1, 39),
)
def test_the_verdict_does_not_depend_on_the_start_frame(waves, reach, frames, shift):
    def path(t):
        x = math.sin(TAU * t + waves[0]) + 0.3 * math.sin(2 * TAU * t + waves[1])
        y = math.sin(TAU * t + waves[2]) + 0.3 * math.sin(2 * TAU * t + waves[3])
        return reach * x, reach * y

    loop = clip(path, frames)
    reports = check_loop(loop), check_loop(loop.roll(shift, 0))
    assert [report.reasons for report in reports] == [(), ()]
    for figure in ("mirror_error", "mirror_attack"):
        assert getattr(reports[1], figure) == pytest.approx(getattr(reports[0], figure), abs=1e-3)


@pytest.mark.parametrize("noise", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("name", ["circle", "bob, small", "spin"])
def test_grain_does_not_change_the_verdict(name, noise):
    generator = torch.Generator().manual_seed(0)
    loop = clip(TRUE_LOOPS[name])
    assert check_loop(loop + torch.randn(loop.shape, generator=generator) * noise / 255).passed


def test_clips_in_training_order_pass():
    """Forward and back at different speeds (Eq. 3, 4): an abrupt turn, but not a mirror image."""
    source = clip(lambda t: (-0.4 + 0.8 * t, 0.1 * math.sin(3 * t), 1, t), 103)
    rng = random.Random(0)
    verdicts = [check_loop(source[loop_indices(18, rng=rng)][:-1]).reasons for _ in range(12)]
    assert verdicts.count(()) == 12


def reasons(frames: torch.Tensor, **options) -> tuple[str, ...]:
    report = check_loop(frames, **options)
    assert report.passed == (not report.reasons)
    assert all(REASONS[reason] in report.summary for reason in report.reasons)
    return report.reasons


@pytest.mark.parametrize("path", [circle(), bob(), bob(phase=0.7), line])
def test_a_repeated_first_frame_is_held(path):
    loop = clip(path)
    if path is line:
        loop = torch.cat([loop[:18], clip(lambda t: line(0.5 - 0.4 * t))[:16]])
    assert "held_frame" in reasons(torch.cat([loop, loop[:1]]))


def test_a_repeated_first_frame_is_not_measured():
    loop = clip(circle())
    both = torch.cat([loop, loop[:1]])
    for closed in (True, "auto"):
        report = check_loop(both, closed=closed)
        assert (report.passed, report.frames, report.dropped_duplicate) == (True, 34, True)
    assert not check_loop(loop, closed="auto").dropped_duplicate
    assert reasons(loop, closed=True) == ("jump",), (
        "dropping a frame that is not a duplicate must be a jump"
    )


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_still_clip_is_frozen(noise):
    still = sticker().expand(20, -1, -1, -1)
    grain = torch.randn(still.shape, generator=torch.Generator().manual_seed(0)) * noise / 255
    assert reasons(still + grain) == ("frozen",)


@pytest.mark.parametrize(
    "path",
    [line, lambda t: circle()(0.8 * t), lambda t: circle()(0.95 * t), lambda t: bob()(0.8 * t)],
)
def test_a_bad_cut_jumps(path):
    assert reasons(clip(path)) == ("jump",)


@pytest.mark.parametrize("amount", [0.02, 0.05, 0.15])
@pytest.mark.parametrize("tint", [(1, 1, 1), (1, 0, -0.5)])
@pytest.mark.parametrize("path", [circle(), bob(0.05)])
def test_colour_drift_is_the_only_fault(path, tint, amount):
    drift = torch.linspace(0, amount, 34)[:, None, None, None] * torch.tensor(tint).float()
    assert reasons(clip(path) - drift) == ("colour_drift",)


def test_a_cut_to_other_colours_and_shapes_has_both_reasons():
    drift = torch.linspace(0, 0.15, 34)[:, None, None, None]
    assert reasons(clip(line) - drift) == ("jump", "colour_drift")


@pytest.mark.parametrize(
    "path", [line, lambda t: bob(phase=0.3)(0.7 * t), lambda t: circle()(0.6 * t)]
)
@pytest.mark.parametrize("shift", [0, 7])
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_ping_pong_fails_from_any_start_frame(path, shift, noise):
    there = clip(path)[:18]
    clip_there_and_back = torch.cat([there, there[1:-1].flip(0)]).roll(shift, 0)
    grain = torch.randn(clip_there_and_back.shape, generator=torch.Generator().manual_seed(0))
    assert reasons(clip_there_and_back + grain * noise / 255) == ("ping_pong",)


def test_ping_pong_with_doubled_ends_is_held_as_well():
    there = clip(line)[:18]
    assert reasons(torch.cat([there, there.flip(0)])) == ("held_frame", "ping_pong")


@pytest.mark.parametrize("ease", ["long rest", "smootherstep"])
def test_motion_that_stops_at_the_seam_is_a_stall(ease):
    loop = clip(circle(0.2))
    if ease == "long rest":
        loop = torch.cat([loop[:1].expand(4, -1, -1, -1), loop, loop[:1].expand(2, -1, -1, -1)])
    else:
        loop = clip(lambda t: circle(0.2)(t**3 * (t * (6 * t - 15) + 10)))
    assert reasons(loop) == ("stall",)


def test_a_new_texture_at_the_restart_is_a_keyframe_pop():
    """As after encoding: fine patterns change slowly, and all at once at the restart."""
    generator = torch.Generator().manual_seed(0)
    loop = clip(circle(0.05)).repeat_interleave(4, 1).repeat_interleave(4, 2)
    pattern = [torch.randn(loop.shape[1:], generator=generator) for _ in range(2)]
    turn = torch.linspace(0, math.pi / 2, 34)[:, None, None, None]
    texture = turn.cos() * pattern[0] + turn.sin() * pattern[1]
    assert reasons(loop + texture * 2 / 255) == ("keyframe_pop",)


def test_repeats_are_found_and_scored_at_the_restart():
    loop = clip(circle(), 20)
    report = check_loop(loop.repeat(3, 1, 1, 1))
    assert (report.passed, report.frames, report.period_frames, report.repeats) == (True, 60, 20, 3)
    assert "a loop of 20, 3 times" in report.summary
    assert check_loop(loop).period_frames == 20


def test_measurements_have_their_documented_values():
    frames = torch.zeros(4, 16, 16, 3)
    for index, level in enumerate((0, 10, 20, 40)):
        frames[index] = level / 255
    report = check_loop(frames, reference=torch.full((16, 16, 3), 3 / 255))
    assert report.steps == pytest.approx((10, 10, 20, 40), abs=1e-3)
    assert (report.motion, report.max_distance) == pytest.approx((10, 40), abs=1e-3)
    assert report.seam_ratio == pytest.approx(4, abs=1e-3)
    assert report.mse_f0 == pytest.approx(9, abs=1e-3)
    lab = measures.mean_colours(
        torch.tensor([[[[1.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5]]]]).permute(2, 0, 1, 3)
    )
    expected = [[53.24, 80.09, 67.20], [100, 0, 0], [53.39, 0, 0]]
    assert torch.allclose(lab, torch.tensor(expected), atol=0.02)


def test_ssim_matches_the_published_formula():
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 24, 30, 3, generator=generator)
    offsets = torch.arange(11.0) - 5
    line_weights = torch.exp(-(offsets**2) / 4.5)
    window = torch.outer(line_weights, line_weights)
    window = (window / window.sum()).double()
    a, b = (frames.double() @ torch.tensor([0.299, 0.587, 0.114]).double()).unbind(0)
    scores = []
    for y in range(14):
        for x in range(20):
            p, q = a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11]
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
            covariance = (window * (p - mean_p) * (q - mean_q)).sum()
            scores.append(
                (2 * mean_p * mean_q + 1e-4)
                * (2 * covariance + 9e-4)
                / ((mean_p**2 + mean_q**2 + 1e-4) * (var_p + var_q + 9e-4))
            )
    assert measures.ssim_adjacent(frames) == pytest.approx(
        float(torch.stack(scores).mean()), abs=1e-5
    )
    assert measures.ssim_adjacent(frames[:1].expand(3, -1, -1, -1)) == pytest.approx(1)


def test_slow_runs_are_counted_around_the_loop():
    steps = torch.tensor([0.0, 0, 9, 9, 0, 9, 9, 0])
    assert measures.slow_run(steps, 1.0) == (3, 1)
    assert measures.slow_run(steps.roll(3), 1.0) == (1, 3)
    assert measures.slow_run(torch.zeros(5), 1.0) == (5, 0)
    assert measures.slow_run(torch.ones(5), 1.0) == (0, 0)


def test_clip_scores_use_the_given_encoder():
    loop = clip(circle(), 8)

    def encoder(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.mean((1, 2)) - 0.5

    with_reference = check_loop(loop, image_encoder=encoder, reference=Picture(loop[0]))
    embeddings = torch.nn.functional.normalize(encoder(loop), dim=-1)
    assert with_reference.clip_i == pytest.approx(float((embeddings @ embeddings[0]).mean()))
    assert with_reference.loop_c == pytest.approx(float(embeddings[0] @ embeddings[-1]))
    assert with_reference.mse_f0 == pytest.approx(0, abs=1e-6)
    assert check_loop(loop, image_encoder=encoder).clip_i is None
    assert check_loop(loop).fc is None


@pytest.mark.parametrize("frames", [clip(circle(), 12), sticker().expand(12, -1, -1, -1)])
def test_reports_are_json_without_nan(frames):
    text = json.dumps(check_loop(frames).to_dict(), allow_nan=False)
    assert json.loads(text)["frames"] == 12


@pytest.mark.parametrize("fps", [None, 24])
@pytest.mark.parametrize("repeats", [1, 20])
def test_chart_draws_the_seam_in_the_colour_of_the_verdict(fps, repeats):
    good, bad = (
        check_loop(clip(path, 12).repeat(repeats, 1, 1, 1), fps=fps) for path in (circle(), line)
    )
    for report, channel in ((good, 1), (bad, 0)):
        chart = seam_chart(report)
        assert chart.shape == (320, 640, 3)
        bar = chart[200:260, 290:350]
        saturated = (bar.amax(-1) - bar.amin(-1) > 0.4) & (bar.argmax(-1) == channel)
        assert saturated.any() == isinstance(report, LoopReport)


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (torch.zeros(3, 16, 16, 3), {}, "at least 4 frames, got 3"),
        (torch.zeros(16, 16, 3), {}, r"\[F, H, W, 3\]"),
        (torch.full((5, 16, 16, 3), math.nan), {}, "NaN or infinite"),
        (torch.zeros(5, 16, 16, 3), {"fps": 0}, "fps must be above 0"),
        (torch.zeros(5, 16, 16, 3), {"reference": torch.zeros(5)}, r"\[H, W, 3\]"),
    ],
)
def test_invalid_arguments_raise_one_sentence(frames, options, message):
    with pytest.raises(LoopAnimateError, match=message):
        check_loop(frames, **options)
    with pytest.raises(LoopAnimateError, match="jump_ratio"):
        LoopThresholds(jump_ratio=-1)


def test_a_decoded_file_is_scored(tmp_path):
    from loopanimate_core.video import write_video

    loop = clip(circle(), 16)
    report = check_file(write_video(loop, tmp_path / "loop.webp", fps=10))
    assert (report.passed, report.frames, report.fps) == (True, 16, pytest.approx(10))
    film = check_file(
        write_video(loop, tmp_path / "loop.mp4", fps=10, repeats=3), reference=loop[0]
    )
    assert (film.period_frames, film.repeats) == (16, 3)
    assert film.mse_f0 is not None
    assert film.mse_f0 < 60
    jump = check_file(write_video(clip(line, 16), tmp_path / "jump.mp4", fps=10))
    assert "jump" in jump.reasons
    held = check_file(write_video(torch.cat([loop, loop[:1]]), tmp_path / "held.mp4", fps=10))
    assert held.reasons == ("held_frame",)
    assert (held.period_frames, held.repeats) == (17, 6)
