"""Noise schedules, and the diffusers schedulers that walk them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .errors import LoopAnimateError

if TYPE_CHECKING:
    from torch import Tensor

BETA_SCHEDULES = ("linear", "scaled_linear")
PREDICTION_TYPES = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule a model was trained on. It belongs to the weights, not to the sampler.

    Attributes:
        beta_schedule: `scaled_linear` is Stable Diffusion's, `linear` is AnimateDiff's (ComfyUI swaps the two
            names).
        prediction_type: `epsilon` for noise, `v_prediction` for velocity.
        still_prior: 0, or the standard deviation of a clip's changes around its still. Above 0 the network
            predicts a correction of what the still alone says (`preconditioning.still_prior`).
    """

    beta_schedule: str = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    num_train_timesteps: int = 1000
    prediction_type: str = "epsilon"
    still_prior: float = 0.0

    def __post_init__(self) -> None:
        for name, legal in (
            ("beta_schedule", BETA_SCHEDULES),
            ("prediction_type", PREDICTION_TYPES),
        ):
            if getattr(self, name) not in legal:
                raise LoopAnimateError(
                    f"{name} must be one of {', '.join(legal)}, got {getattr(self, name)!r}"
                )
        if not 0 <= self.still_prior <= 1:
            raise LoopAnimateError(f"still_prior must be between 0 and 1, got {self.still_prior}")
        if self.still_prior and self.prediction_type != "v_prediction":
            raise LoopAnimateError(
                f"still_prior needs prediction_type 'v_prediction', got {self.prediction_type!r}"
            )


def alphas_cumprod(config: ScheduleConfig) -> Tensor:
    """ᾱ_t of Eq. 1, `[num_train_timesteps]` float32."""
    import torch

    ends, count = (config.beta_start, config.beta_end), config.num_train_timesteps
    if config.beta_schedule == "linear":
        betas = torch.linspace(*ends, count, dtype=torch.float64)
    else:
        betas = torch.linspace(ends[0] ** 0.5, ends[1] ** 0.5, count, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


LCM_STEPS = 50  # the timesteps that diffusers' LCMScheduler chooses from, so the most it can take

# name: (class in diffusers, its settings). DPM++ 2M with uniform log-SNR spacing (`lu`) needs the fewest
# steps for the same error; spacing matters more than the solver.
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpmpp_2m_lu": ("DPMSolverMultistepScheduler", {"use_lu_lambdas": True}),
    "dpmpp_2m_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {"use_karras_sigmas": True}),
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "ddim": (
        "DDIMScheduler",
        {"clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "trailing"},
    ),
    "lcm": ("LCMScheduler", {"clip_sample": False, "original_inference_steps": LCM_STEPS}),
}


class Scheduler(Protocol):
    """What sampling uses of a diffusers scheduler.

    All but DDIM, which goes by the timestep's value, also have `set_begin_index`.
    """

    timesteps: Tensor

    def set_timesteps(self, num_inference_steps: int, *, device: Any = None) -> None: ...
    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor: ...
    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor: ...
    def step(self, model_output: Tensor, timestep: Any, sample: Tensor, **options: Any) -> Any: ...


def check_scheduler(name: str) -> None:
    """Raises LoopAnimateError for a name that is not in `SCHEDULERS`."""
    if name not in SCHEDULERS:
        raise LoopAnimateError(f"scheduler must be one of {', '.join(SCHEDULERS)}, got {name!r}")


OWN_SOLVERS = {"dpmpp_2m_lu": "lu", "dpmpp_2m_karras": "karras"}
"""Samplers that need no diffusers: our `solver.DpmSolver2M` gives the same numbers."""


def make_scheduler(name: str, config: ScheduleConfig) -> Scheduler:
    """A sampler by our name for it, on the model's own noise schedule: ours, or one of diffusers' schedulers."""
    check_scheduler(name)
    if name in OWN_SOLVERS:
        from .solver import DpmSolver2M

        return DpmSolver2M(alphas_cumprod(config), config.prediction_type, OWN_SOLVERS[name])
    return make_diffusers_scheduler(name, config)


def make_diffusers_scheduler(name: str, config: ScheduleConfig) -> Scheduler:
    """One of diffusers' schedulers by our name for it."""
    import diffusers.schedulers as schedulers

    class_name, settings = SCHEDULERS[name]
    return getattr(schedulers, class_name)(
        num_train_timesteps=config.num_train_timesteps,
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=config.beta_schedule,
        prediction_type=config.prediction_type,
        **settings,
    )
