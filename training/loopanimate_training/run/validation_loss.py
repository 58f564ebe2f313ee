"""The loss of the averaged weights on fixed clips, at fixed noise and timesteps: unlike the training loss, equal from
step to step but for the weights."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from loopanimate_core.errors import LoopAnimateError

from ..config import RunConfig
from ..data.batch import Batch
from ..data.latent_cache import LatentCache
from ..data.loops import draw_loop
from ..optimizer import Ema
from ..rng import python_rng, torch_rng
from .validation import FAILURES, averaged_weights

TIMESTEPS_PER_CLIP = 4  # evenly spread over the schedule


class ValidationLoss:
    """The mean over the first `validation.loss_clips` validation clips.

    Everything but the weights depends on the clip alone: its loop, noise and timesteps, whatever the seed of the
    run. Text and image are kept and the turning frame is dropped, as in sampling.

    Args:
        cache: of the validation clips.
        timesteps: length of the noise schedule.
    """

    def __init__(self, config: RunConfig, cache: LatentCache, timesteps: int) -> None:
        self._config, self._cache, self._timesteps = config, cache, timesteps
        self._count = min(config.validation.loss_clips, len(cache.source))

    def measure(self, model: nn.Module, ema: Ema, accelerator: Accelerator) -> float:
        """The mean loss; each process computes its share, so all must call it.

        Args:
            model: from `Batch` to loss.

        Raises:
            LoopAnimateError: a clip cannot be read, here or elsewhere.
        """
        rank, world = accelerator.process_index, accelerator.num_processes
        found: list[float | str] = []
        try:
            with averaged_weights(ema), torch.no_grad():
                for clip_id in range(rank, self._count, world):
                    found += [
                        float(model(self.batch(clip_id, part).to(accelerator.device)))
                        for part in range(TIMESTEPS_PER_CLIP)
                    ]
        except FAILURES as error:
            found = [str(error)]
        together = gather_object(found)
        if problem := next((one for one in together if isinstance(one, str)), None):
            raise LoopAnimateError(problem)
        return sum(together) / len(together)

    def batch(self, clip_id: int, part: int) -> Batch:
        """A clip at its `part`-th timestep, as a batch of one."""
        loop = draw_loop(self._config.clip, python_rng(0, "validation loss", clip_id))
        encoded = self._cache.get(clip_id, self._cache.start_of(clip_id, 0), loop)
        latents = encoded.loop(loop)
        generator = torch_rng(0, "validation noise", TIMESTEPS_PER_CLIP * clip_id + part)
        sample: tuple[Tensor, ...] = (
            latents,
            torch.randn(latents.shape, generator=generator),
            encoded.masks.float(),
            encoded.image_embeds.float(),
            self._cache.text(self._cache.source.caption(clip_id)),
            torch.tensor(int((part + 0.5) / TIMESTEPS_PER_CLIP * self._timesteps)),
            torch.tensor(False),
        )
        return Batch(*(field[None] for field in sample))
