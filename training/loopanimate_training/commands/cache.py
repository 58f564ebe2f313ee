"""`loopanimate-train cache`: encode all clips and captions of a run before it starts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from loopanimate_core.errors import LoopAnimateError

from .options import Commands, add_run_options, add_shard_option, resolve_run

if TYPE_CHECKING:
    from ..config import RunConfig
    from ..data.cache_filling import Filled
    from ..data.shard import Shard


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser("cache", help="encode all clips of a run into its cache")
    parser.set_defaults(run=run)
    add_run_options(parser)
    add_shard_option(parser)


def run(options: argparse.Namespace) -> int:
    from ..data.shard import Shard

    shard = Shard.parse(options.shard or "1/1")
    filled = fill_cache(resolve_run(options), shard, say=print)
    print(f"{filled.windows} windows are in the cache, {filled.bad_clips} clips could not be read")
    if filled.signal_number:
        print("stopped; the same command continues", file=sys.stderr)
        return 128 + filled.signal_number
    return 0


def fill_cache(
    config: RunConfig, shard: Shard | None = None, say: Callable[[str], None] = lambda _: None
) -> Filled:
    """Encode every window and caption that the cache does not have yet, of a share of the clips.

    Processes of `accelerate launch` split the share between them.

    Raises:
        LoopAnimateError: the run has no `data.cache`, the disk has too little space, or more clips than
            `data.max_bad_share` cannot be read.
    """
    from accelerate import Accelerator

    from ..data.cache_filling import fill
    from ..data.shard import Shard
    from ..model.start import open_start
    from ..setup import make_loader

    folder = config.data.cache
    if folder is None:
        raise LoopAnimateError("data.cache is not set; it names the folder for the encoded clips")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LoopAnimateError(
            f"data.cache is {folder}; that folder cannot be created: {error.strerror or error}"
        ) from error
    accelerator = Accelerator(cpu=config.device == "cpu")
    cache = make_loader(config, open_start(config.model, config.seed), accelerator).cache
    cache.must_write = True
    samples, clips = config.steps * config.batch.clips, len(cache.source)
    if samples <= clips:
        say(
            f"the run takes {samples:,} of {clips:,} clips, each once: a cache saves it nothing, and without data.cache"
            " only the frames of each loop are encoded"
        )
    mine = (shard or Shard()).split(accelerator.process_index, accelerator.num_processes)
    return fill(cache, config.data, mine, say, show_progress=accelerator.is_main_process)
