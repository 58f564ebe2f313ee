"""The one reader of a bundle's config: types, sizes and ranges, before any network is built from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..parsing import Fields, MalformedError, parse_json
from ..schedule import BETA_SCHEDULES, PREDICTION_TYPES
from .config import BundleConfig

MAX_CONFIG_BYTES = 64 * 2**20  # with a vocabulary in it
MAX_FRAMES = 100_000
MAX_SIDE_PX = 8192
MAX_SIZE = 2**20  # of a layer, a vocabulary, a number of positions
MAX_LEVELS = 16
MAX_TEXT = 200
DEPTHS = ("layers_per_block", "num_hidden_layers", "num_encoder_blocks", "num_decoder_blocks")
"""Settings that say how many layers are built; a file with these layers has at least as many tensors."""
_SIZES = ("latent_magnitude", "latent_shift", "scaling_factor", "layer_norm_eps", "norm_eps")


def read_config(text: str, what: str, tensors: int) -> BundleConfig:
    """The config in a bundle's header.

    Args:
        text: JSON.
        what: the subject of messages.
        tensors: how many the file has; a network of more layers is not built.

    Raises:
        LoopAnimateError: an entry is missing, unknown, of another type or out of its range.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise MalformedError(f"{what} has more than {MAX_CONFIG_BYTES:,} characters")
    fields = Fields(parse_json(text, what), what)
    _check_sizes(fields)
    _check_schedule(fields)
    _check_defaults(fields)
    for name in ("unet", "vae", "text_encoder", "image_encoder"):
        _check_network(fields.fields(name, {}), tensors)
    _check_tokenizer(fields)
    return BundleConfig.from_dict(fields.values)


def read_provenance(text: str, what: str) -> dict[str, Any]:
    """How a model was made, as the header tells: any JSON object."""
    return dict(Fields(parse_json(text, what), what).values)


def _check_sizes(fields: Fields) -> None:
    if "frames" in fields:
        _wholes(fields, "frames", fields.items("frames", 100), 1, MAX_FRAMES)
        if not fields.items("frames", 100):
            raise MalformedError(f"'frames' of {fields.what} is empty")
    for name in ("height_px", "width_px"):
        side_px = fields.whole(name, 16, MAX_SIDE_PX, 512)
        if side_px % 8:
            raise MalformedError(
                f"{name!r} of {fields.what} must be a multiple of 8, got {side_px}"
            )
    for shape in fields.items("shapes", 100, []):
        if not isinstance(shape, list) or len(shape) != 2:
            raise MalformedError(f"'shapes' of {fields.what} must be pairs of width and height")
        _wholes(fields, "shapes", shape, 16, MAX_SIDE_PX)


def _check_schedule(fields: Fields) -> None:
    schedule = fields.fields("schedule", {})
    schedule.choice("beta_schedule", BETA_SCHEDULES, BETA_SCHEDULES[0])
    schedule.choice("prediction_type", PREDICTION_TYPES, PREDICTION_TYPES[0])
    low = schedule.number("beta_start", 1e-9, 0.999, 0.00085)
    schedule.number("beta_end", low, 0.999, 0.012)
    schedule.whole("num_train_timesteps", 10, 100_000, 1000)
    schedule.number("still_prior", 0, 1, 0.0)


def _check_defaults(fields: Fields) -> None:
    defaults = fields.fields("defaults", {})
    defaults.text("scheduler", "", high=MAX_TEXT)
    defaults.whole("steps", 1, 1000, 25)
    defaults.whole("frames", 3, MAX_FRAMES, 35)
    defaults.number("fps", 0.01, 1000, 8.0)
    for name in ("guidance", "start", "hold_still", "residual"):
        defaults.number(name, 0, 100, 1.0)
    fast = defaults.fields("fast", {})
    fast.text("scheduler", "", high=MAX_TEXT)
    fast.whole("steps", 1, 1000, 4)
    fast.number("guidance", 0, 100, 1.0)


def _check_network(network: Fields, tensors: int) -> None:
    """Settings of a network: texts, numbers and lists of them."""
    for name, value in network.values.items():
        entries = value if isinstance(value, (list, tuple)) else [value]
        if len(entries) > MAX_LEVELS:
            raise MalformedError(f"{name!r} of {network.what} has more than {MAX_LEVELS} entries")
        for entry in entries:
            _check_setting(network, name, entry)
        layers = sum(entry for entry in entries if isinstance(entry, int)) if name in DEPTHS else 0
        if layers > tensors:
            raise MalformedError(
                f"{name!r} of {network.what} asks for {layers:,} layers, but the file has {tensors:,} tensors"
            )


def _check_setting(network: Fields, name: str, value: Any) -> None:
    one = Fields({name: value}, network.what)
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, str):
        one.text(name, high=MAX_TEXT)
    elif name in _SIZES:
        one.number(name, 1e-12, 1e6)
    elif isinstance(value, int):
        one.whole(name, 0, MAX_SIZE)
    else:
        one.number(name, -1e6, 1e6)


def _check_tokenizer(fields: Fields) -> None:
    if isinstance(fields.values.get("tokenizer"), str):
        fields.text("tokenizer", high=MAX_TEXT)
        return
    tokenizer = fields.fields("tokenizer", {})
    if not tokenizer.values:
        return
    vocabulary = tokenizer.fields("vocab")
    if len(vocabulary.values) > MAX_SIZE:
        raise MalformedError(f"{vocabulary.what} has more than {MAX_SIZE:,} tokens")
    _wholes(vocabulary, "ids", vocabulary.values.values(), 0, MAX_SIZE)
    for merge in tokenizer.items("merges", MAX_SIZE):
        parts = merge if isinstance(merge, list) else [merge]
        if not 1 <= len(parts) <= 2 or not all(isinstance(part, str) for part in parts):
            raise MalformedError(f"'merges' of {tokenizer.what} must be pairs of texts")


def _wholes(fields: Fields, name: str, values: Iterable[Any], low: int, high: int) -> None:
    for value in values:
        Fields({name: value}, fields.what).whole(name, low, high)
