"""LoopUNet against diffusers' UNetMotionModel, and every speed-up against its plain form."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from closeness import NETWORK, assert_close, assert_close_gradients
from torch import Tensor

from loopanimate_core import LoopAnimateError, LoopUNet, LoopUNetConfig

pytestmark = pytest.mark.numeric

SIZES: dict[str, Any] = {
    "block_out_channels": (16, 24, 32),
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "num_attention_heads": 2,
    "motion_num_attention_heads": 2,
    "norm_num_groups": 4,
}
ROUTINGS = [  # the rows of Table 4: down, middle, up
    ("image", "text", "text"),
    ("image", "none", "text"),
    ("text", "text", "text"),
    ("image", "image", "image"),
    ("text", "text", "image"),
]


def make_unet(**settings: Any) -> LoopUNet:
    torch.manual_seed(0)
    return LoopUNet(LoopUNetConfig(**{**SIZES, **settings})).eval()


@pytest.fixture
def unet() -> LoopUNet:
    return make_unet()


def inputs(clips: int = 2, frames: int = 5, branches: int = 1) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(clips, 9, frames, 8, 8, generator=generator),
        torch.tensor([3.0, 700.0])[:clips],
        torch.randn(clips, 1, 12, generator=generator),
        torch.randn(clips * branches, 4, 12, generator=generator),
    )


def diffusers_twin(unet: LoopUNet) -> Any:
    from diffusers.models.unets.unet_motion_model import UNetMotionModel

    levels = len(unet.config.block_out_channels) - 1
    twin = UNetMotionModel(
        in_channels=9,
        down_block_types=("CrossAttnDownBlockMotion",) * levels + ("DownBlockMotion",),
        up_block_types=("UpBlockMotion",) + ("CrossAttnUpBlockMotion",) * levels,
        use_motion_mid_block=False,
        motion_max_seq_length=36,
        **SIZES,
    )
    missing, unexpected = twin.load_state_dict(unet.state_dict(), strict=False)
    assert not unexpected and all(key.endswith("pos_embed.pe") for key in missing)
    return twin.eval()


@torch.no_grad()
@pytest.mark.parametrize("layers_per_block", [1, 2])
def test_equals_diffusers_with_the_same_weights(
    layers_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, "layers_per_block", layers_per_block)
    unet = make_unet(routing=("text",) * 3, norm_scope="clip")
    sample, timestep, image, text = inputs()
    expected = diffusers_twin(unet)(sample, timestep, text.repeat_interleave(5, 0)).sample
    assert_close(unet(sample, timestep, image, text), expected, depth=NETWORK)


@torch.no_grad()
def test_odd_latent_sizes_run(unet: LoopUNet) -> None:
    _, timestep, image, text = inputs()
    assert unet(torch.randn(2, 9, 5, 7, 9), timestep, image, text).shape == (2, 4, 5, 7, 9)


@torch.no_grad()
@pytest.mark.parametrize("routing", ROUTINGS, ids="-".join)
def test_each_part_reads_the_condition_set_by_routing(routing: tuple[str, str, str]) -> None:
    unet = make_unet(routing=routing)
    sample, timestep, image, text = inputs()
    reads: dict[str, set[str]] = {"image": set(), "text": set()}
    base = record_attention(unet, sample, timestep, image, text)
    for source, changed in (
        ("image", record_attention(unet, sample, timestep, image + 1, text)),
        ("text", record_attention(unet, sample, timestep, image, text + 1)),
    ):
        # changes also reach later parts through the features, so only the first part that differs counts
        reads[source] = {part for part in base if not torch.equal(base[part], changed[part])}
    order = ("down", "mid", "up")
    for source in reads:
        first = next(
            (part for part, name in zip(order, routing, strict=True) if name == source), None
        )
        expected = set(order[order.index(first) :]) if first else set()
        assert reads[source] == expected


def record_attention(unet: LoopUNet, *args: Tensor) -> dict[str, Tensor]:
    outputs: dict[str, Tensor] = {}

    def keep(part: str) -> Any:
        return lambda module, arguments, output: outputs.__setitem__(part, output)

    layers = {
        "down": unet.down_blocks[-1].motion_modules[-1],
        "mid": unet.mid_block.resnets[1],
        "up": unet.up_blocks[-1].motion_modules[-1],
    }
    hooks = [layer.register_forward_hook(keep(part)) for part, layer in layers.items()]
    unet(*args)
    for hook in hooks:
        hook.remove()
    return outputs


@torch.no_grad()
def test_text_does_not_change_the_down_blocks(unet: LoopUNet) -> None:
    sample, timestep, image, text = inputs()
    seen: list[list[Tensor]] = [[], []]
    for run, embeds in enumerate((text, text.flip(0) * 3)):
        hooks = [
            block.motion_modules[-1].register_forward_hook(
                lambda module, arguments, output, run=run: seen[run].append(output)
            )
            for block in unet.down_blocks
        ]
        unet(sample, timestep, image, embeds)
        for hook in hooks:
            hook.remove()
    assert len(seen[0]) == 3
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("speedup", ["one_token", "fold_frames", "shared_down", "shared_skips"])
def test_each_speedup_equals_its_plain_form(unet: LoopUNet, speedup: str) -> None:
    arguments = inputs(branches=2)
    fast = unet(*arguments)
    unet.speedups = dataclasses.replace(unet.speedups, **{speedup: False})
    assert fast.shape[0] == 4
    assert_close(fast, unet(*arguments), depth=NETWORK)


@torch.no_grad()
def test_prepared_text_equals_text(unet: LoopUNet) -> None:
    sample, timestep, image, text = inputs(branches=2)
    plain = unet(sample, timestep, image, text)
    prepared = unet.prepare_text(text)
    assert (
        len(prepared.keys_values) == 1 + 2 * 2
    )  # the middle block and two layers in two up blocks
    assert_close(unet(sample, timestep, image, prepared), plain, depth=NETWORK)


@torch.no_grad()
def test_guidance_branches_equal_separate_calls(unet: LoopUNet) -> None:
    sample, timestep, image, text = inputs(branches=2)
    together = unet(sample, timestep, image, text)
    apart = torch.cat([unet(sample, timestep, image, part) for part in text.split(2)])
    assert_close(together, apart, depth=NETWORK)
    other_image = torch.cat(
        [image, -image]
    )  # branches with different pictures cannot share the down path
    apart = torch.cat(
        [
            unet(sample, timestep, i, t)
            for i, t in zip(other_image.split(2), text.split(2), strict=True)
        ]
    )
    assert_close(unet(sample, timestep, other_image, text), apart, depth=NETWORK)


@torch.no_grad()
@pytest.mark.parametrize(
    ("chunk_frames", "chunk_pixels"), [(1, None), (2, None), (None, 7), (3, 64)]
)
def test_chunks_change_nothing(
    unet: LoopUNet, chunk_frames: int | None, chunk_pixels: int | None
) -> None:
    arguments = inputs(branches=2)
    whole = unet(*arguments)
    unet.chunk_frames, unet.chunk_pixels = chunk_frames, chunk_pixels
    assert_close(unet(*arguments), whole, depth=NETWORK)


def text_of_frames(frames: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(4, frames, 4, 12, generator=generator)


@torch.no_grad()
@pytest.mark.parametrize("routing", ROUTINGS, ids="-".join)
def test_the_same_text_at_every_frame_is_one_text(routing: tuple[str, str, str]) -> None:
    unet = make_unet(routing=routing)
    sample, timestep, image, text = inputs(branches=2)
    at_every_frame = text[:, None].expand(-1, 5, -1, -1)
    found = unet(sample, timestep, image, at_every_frame)
    assert_close(found, unet(sample, timestep, image, text), depth=NETWORK)


@torch.no_grad()
@pytest.mark.parametrize("speedup", ["one_token", "fold_frames", "shared_down", "shared_skips"])
@pytest.mark.parametrize("tokens", [1, 4])
def test_each_speedup_equals_its_plain_form_with_text_of_frames(
    unet: LoopUNet, speedup: str, tokens: int
) -> None:
    sample, timestep, image, _ = inputs()
    arguments = (sample, timestep, image, text_of_frames()[:, :, :tokens])
    fast = unet(*arguments)
    unet.speedups = dataclasses.replace(unet.speedups, **{speedup: False})
    assert_close(fast, unet(*arguments), depth=NETWORK)


@torch.no_grad()
@pytest.mark.parametrize("chunk_frames", [1, 3])
def test_chunks_and_prepared_text_of_frames_change_nothing(
    unet: LoopUNet, chunk_frames: int
) -> None:
    sample, timestep, image, _ = inputs()
    text = text_of_frames(frames=7)
    order = torch.tensor([6, 0, 1, 2, 3])
    plain = unet(sample, timestep, image, text[:, order])
    prepared = unet.prepare_text(text).at(order)
    assert prepared.keys_values
    unet.chunk_frames = chunk_frames
    assert_close(unet(sample, timestep, image, prepared), plain, depth=NETWORK)


def gradients(unet: LoopUNet) -> dict[str, Tensor]:
    unet(*inputs()).square().mean().backward()
    return {name: p.grad for name, p in unet.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunks", [{}, {"chunk_frames": 2, "chunk_pixels": 7}])
def test_checkpointing_gives_the_same_gradients(unet: LoopUNet, chunks: dict[str, int]) -> None:
    twin = copy.deepcopy(unet)
    twin.gradient_checkpointing = True
    for name, value in chunks.items():
        setattr(twin, name, value)
    plain = gradients(unet)
    assert_close_gradients(gradients(twin), plain)
    idle = [name for name, _ in unet.named_parameters() if name not in plain]
    # with one image token the queries of the down blocks are not used
    assert idle and all("down_blocks" in name for name in idle)


def test_frames_are_independent_without_motion_modules(unet: LoopUNet) -> None:
    unet.zero_motion()
    sample, timestep, image, text = inputs()
    other = sample.clone()
    other[:, :, 3] += 1
    with torch.no_grad():
        a, b = unet(sample, timestep, image, text), unet(other, timestep, image, text)
    changed = [not torch.equal(a[:, :, i], b[:, :, i]) for i in range(5)]
    assert changed == [False, False, False, True, False]


def test_more_frames_than_positions_are_rejected(unet: LoopUNet) -> None:
    _, timestep, image, text = inputs()
    with pytest.raises(LoopAnimateError, match=r"a window must have 1 to 36 frames, got 37"):
        unet(torch.randn(2, 9, 37, 8, 8), timestep, image, text)
    longer = make_unet(max_positions=48)
    longer.load_state_dict(
        unet.state_dict()
    )  # position tables are computed, so the weights fit any length
    with torch.no_grad():
        assert longer(torch.randn(2, 9, 37, 8, 8), timestep, image, text).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"routing": ("image", "text", "sound")}, "routing must be .*sound"),
        ({"norm_scope": "batch"}, "norm_scope must be one of per_frame, clip, got 'batch'"),
        ({"block_out_channels": (16, 25)}, "block_out_channels must be multiples of 4, got 25"),
    ],
)
def test_invalid_settings_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LoopAnimateError, match=message):
        LoopUNetConfig(**{**SIZES, **settings})


def test_config_round_trips_through_json() -> None:
    import json

    config = LoopUNetConfig(**SIZES)
    assert LoopUNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(LoopAnimateError, match="unknown UNet setting 'colour'"):
        LoopUNetConfig.from_dict({"colour": 1})


@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("norm_eps", "1e-5", "a number above 0"),
        ("norm_eps", float("nan"), "a number above 0"),
        ("layers_per_block", 1.5, "a whole number above 0"),
        ("norm_num_groups", 0, "a whole number above 0"),
        ("num_attention_heads", True, "a whole number above 0"),
        ("block_out_channels", 16, "a list"),
        ("block_out_channels", [], "a list"),
        ("block_out_channels", [16, "24"], "a whole number above 0"),
        ("routing", ["image", None, "text"], "a string"),
    ],
)
def test_file_with_a_setting_of_the_wrong_type_is_rejected(
    name: str, value: Any, legal: str
) -> None:
    with pytest.raises(LoopAnimateError, match=rf"{name} of the UNet must be {legal}, got"):
        LoopUNetConfig.from_dict({name: value})


@pytest.mark.parametrize("norm_scope", ["per_frame", "clip"])
@pytest.mark.parametrize("routing", ROUTINGS[:3])
def test_sums_in_place_change_nothing(routing: tuple[str, str, str], norm_scope: str) -> None:
    """Without autograd, layers reuse the memory of what they just computed; inputs stay as they were."""
    unet = make_unet(routing=routing, norm_scope=norm_scope)
    given = inputs(branches=2)
    before = [tensor.clone() for tensor in given]
    with torch.enable_grad():
        expected = unet(*given)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert_close(unet(*given), expected.detach(), depth=NETWORK)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_layers_keep_the_memory_layout(unet: LoopUNet) -> None:
    with torch.no_grad():
        x = torch.randn(10, 16, 8, 8)
        for layer, arguments in (
            (unet.down_blocks[0].motion_modules[0], (5,)),
            (unet.down_blocks[0].attentions[0], (unet.prepare_text(torch.randn(2, 4, 12)), 5)),
        ):
            assert layer(x, *arguments).is_contiguous()
