"""Every setting of a run: its name, type, range, default, and a sentence that says what it does. Those of clips are in `clips.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from .base import MAY_CHANGE, Section, Share, ShareBelowOne
from .clips import BatchConfig, ClipConfig, DataConfig

Condition = Literal["image", "text", "none"]
# YAML reads a bare `no` as false.
Precision = Annotated[
    Literal["no", "bf16", "fp16"], BeforeValidator(lambda value: "no" if value is False else value)
]


class LoraConfig(Section):
    """Low-rank adapters (Hu et al. 2021): each linear layer of `targets` gets alpha/rank · up(down(x)) added."""

    rank: PositiveInt = Field(default=16, description="Rank of each adapter.")
    alpha: PositiveFloat = Field(
        default=16.0, description="Scale of the update, which is alpha / rank."
    )
    targets: Annotated[
        tuple[Literal["cab", "temm", "temm.q", "temm.k", "temm.v"], ...], Field(min_length=1)
    ] = Field(
        default=("temm", "cab"), description="Parts of the UNet whose linear layers get an adapter."
    )


class ModelConfig(Section):
    """The model that training starts from, and which of its weights train."""

    start: Path = Field(
        description="Bundle to start from, or the run folder or checkpoint of an earlier stage."
    )
    train: tuple[
        Literal["all", "conv_in", "cab", "temm", "temm.q", "temm.k", "temm.v", "other"], ...
    ] = Field(
        description="Parts of the UNet to train; `temm` includes its projections. Use [] to train LoRA adapters only."
    )
    train_text_encoder: bool = Field(default=False, description="Train the text encoder as well.")
    lora: LoraConfig | None = Field(
        default=None, description="Train LoRA adapters, in addition to the parts in `train`."
    )
    routing: tuple[Condition, Condition, Condition] | None = Field(
        default=None,
        description="What cross-attention in the down, middle and up blocks reads (Table 4); null keeps the bundle's.",
    )
    unet: dict[str, Any] | None = Field(
        default=None,
        description="Sizes of a new, randomly initialised UNet that replaces the bundle's; names as in the bundle's header.",
    )
    prediction_type: Literal["epsilon", "v_prediction"] | None = Field(
        default=None, description="What the network predicts; null keeps the bundle's."
    )
    still_prior: Share | None = Field(
        default=None,
        description="Standard deviation of a frame around its still (docs/decisions, still prior); null keeps the bundle's.",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute every module in the backward pass: much less memory, slower steps.",
        json_schema_extra=MAY_CHANGE,
    )
    chunk_frames: PositiveInt | None = Field(
        default=None,
        description="Run spatial layers on this many frames at a time, to save memory; null for all at once.",
        json_schema_extra=MAY_CHANGE,
    )
    chunk_pixels: PositiveInt | None = Field(
        default=None,
        description="Run temporal layers on this many latent pixels at a time, to save memory; null for all at once.",
        json_schema_extra=MAY_CHANGE,
    )
    compile: str | None = Field(
        default=None,
        description="Backend of torch.compile, for example inductor; null for no compilation.",
        json_schema_extra=MAY_CHANGE,
    )
    channels_last: bool = Field(
        default=False,
        description="Keep the UNet's weights in channels-last layout, which is faster on CPUs.",
    )

    @field_validator("unet")
    @classmethod
    def _has_legal_sizes(cls, sizes: dict[str, Any] | None) -> dict[str, Any] | None:
        if sizes is not None:
            from loopanimate_core.models import LoopUNetConfig  # loads torch

            LoopUNetConfig.from_dict(sizes)
        return sizes


class LossConfig(Section):
    """The training objective: what is dropped, and what counts more."""

    drop_turn: Share = Field(
        default=0.5,
        description="Probability that the turning frame is dropped from the condition (r in the paper).",
    )
    drop_text: Share = Field(
        default=0.1,
        description="Probability that the prompt is replaced by the empty one, for guidance.",
    )
    drop_image: Share = Field(
        default=0.1, description="Probability that the image embedding is zeroed, for guidance."
    )
    min_snr: PositiveFloat | None = Field(
        default=None,
        description="Gamma of min-SNR weighting (Hang et al. 2023); null for the plain mean.",
    )
    spread_timesteps: bool = Field(
        default=True,
        description="Spread the timesteps of a step's clips evenly over the schedule; false draws each on its own.",
    )
    timestep_shift: PositiveFloat = Field(
        default=1.0,
        description="Above 1 draws noisy timesteps more often, where the prompt decides the motion.",
    )
    motion_weight: NonNegativeFloat = Field(
        default=0.0,
        description="How much more the loss counts places where a clip differs from its still.",
    )


class DistilConfig(Section):
    """Consistency distillation, which replaces the loss of the other stages. `optimizer.ema_decay` is the target's decay."""

    teacher: Path | None = Field(
        default=None,
        description="Bundle, run folder or checkpoint that is distilled; null for the run's start.",
    )
    skip: NonNegativeInt = Field(
        default=20,
        description="Timesteps between the two points of a path that must lead to the same clip: k of LCM. 0: learn"
        " guidance alone, for any sampler.",
    )
    teacher_steps: PositiveInt = Field(
        default=1, description="DDIM steps in which the teacher goes that far."
    )
    guidance: PositiveFloat | tuple[PositiveFloat, PositiveFloat] | None = Field(
        default=None,
        description="Guidance of the teacher that the student learns: a number, a range to draw from, or null for"
        " the default of the bundle.",
    )
    huber: NonNegativeFloat = Field(
        default=0.001, description="c of the pseudo-Huber loss; 0 for the squared error."
    )


class OptimizerConfig(Section):
    """AdamW, its 8-bit form or Muon, with a learning rate schedule and an average of the weights (EMA)."""

    kind: Literal["adamw", "adamw8bit", "muon"] = Field(
        default="adamw",
        description="Optimiser; adamw8bit needs the package bitsandbytes; muon learns small models in fewer steps.",
    )
    lr: PositiveFloat = Field(description="Learning rate after the warm-up.")
    text_encoder_lr_share: PositiveFloat = Field(
        default=0.3, description="The text encoder's learning rate as a share of `lr`."
    )
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999), description="AdamW's beta 1 and beta 2."
    )
    eps: PositiveFloat = Field(default=1e-8, description="AdamW's epsilon.")
    weight_decay: NonNegativeFloat = Field(default=1e-2, description="AdamW's weight decay.")
    clip_norm: PositiveFloat | None = Field(
        default=1.0,
        description="Gradients are scaled down to this norm when theirs is larger; null for never.",
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="How the learning rate changes after the warm-up."
    )
    warmup_steps: NonNegativeInt = Field(
        default=0, description="Steps over which the learning rate rises linearly to `lr`."
    )
    final_lr_share: Share = Field(
        default=0.0,
        description="Learning rate at the last step of a linear or cosine schedule, as a share of `lr`.",
    )
    ema_decay: ShareBelowOne = Field(
        default=0.9999, description="Decay per step of the averaged weights, which exports use."
    )


class SaveConfig(Section):
    """Checkpoints. When the disk is full, the run waits and tries again."""

    background: bool = Field(
        default=True,
        description="Write checkpoints while training goes on, from a copy in the memory of the CPU; the last one of a"
        " run and those asked for are waited for.",
    )

    every_steps: PositiveInt = Field(default=1000, description="Steps between two checkpoints.")
    keep: PositiveInt = Field(default=2, description="Number of checkpoints to keep.")
    retry_s: PositiveFloat = Field(
        default=30.0, description="Seconds between two attempts to save on a full disk."
    )


class ValidationConfig(Section):
    """Loops generated with the averaged weights: a picture, a video and a loop check of each."""

    every_steps: NonNegativeInt = Field(
        default=0, description="Steps between two validations; 0 for none."
    )
    clips: PositiveInt = Field(default=4, description="Number of loops to generate.")
    steps: PositiveInt = Field(default=12, description="Sampling steps per loop.")
    guidance: PositiveFloat = Field(default=3.0, description="Guidance scale of the loops.")
    pictures: Path | None = Field(
        default=None,
        description="Folder of pictures that are animated as well, with the prompt of `a.png` in `a.txt` beside it.",
    )
    loss_clips: NonNegativeInt = Field(
        default=0,
        description="Number of validation clips whose loss is measured at fixed noise and timesteps; 0 for none.",
    )


class RunConfig(Section):
    """One training run."""

    stage: int = Field(description="Stage of the paper; chosen by --stage.")
    variant: str = Field(
        default="", description="Variant of the stage, for example qk; chosen by --stage 3-qk."
    )
    out: Path = Field(
        description="Folder of the run; an unfinished run in it is resumed.",
        json_schema_extra=MAY_CHANGE,
    )
    steps: PositiveInt = Field(
        description="Optimiser steps of the whole run.", json_schema_extra=MAY_CHANGE
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of every random draw.")
    precision: Precision = Field(
        default="no",
        description="Autocast precision: no (float32), bf16 or fp16 (with a loss scale).",
    )
    device: Literal["auto", "cpu"] = Field(
        default="auto",
        description="auto uses a GPU where there is one.",
        json_schema_extra=MAY_CHANGE,
    )
    log_every_steps: PositiveInt = Field(
        default=10, description="Steps between two rows of log.jsonl.", json_schema_extra=MAY_CHANGE
    )
    tensorboard: bool = Field(
        default=False,
        description="Write the log for TensorBoard as well, in the run's folder.",
        json_schema_extra=MAY_CHANGE,
    )
    tracker: Literal["trackio", "wandb"] | None = Field(
        default=None,
        description="Write the log to trackio (on this machine) or to wandb as well, in the project `loopanimate`.",
        json_schema_extra=MAY_CHANGE,
    )
    title: str = Field(
        default="",
        description="Title of the run and of bundles made from it.",
        json_schema_extra=MAY_CHANGE,
    )
    license: str = Field(
        default="",
        description="Licence of bundles made from the run.",
        json_schema_extra=MAY_CHANGE,
    )
    model: ModelConfig = Field(description="The model to start from, and what trains.")
    clip: ClipConfig = Field(description="How a training clip is drawn.")
    data: DataConfig = Field(description="Where clips come from.")
    batch: BatchConfig = Field(default=BatchConfig(), description="Clips per step.")
    loss: LossConfig = Field(default=LossConfig(), description="The training objective.")
    distil: DistilConfig | None = Field(
        default=None, description="Consistency distillation of a teacher (stage 4); null for none."
    )
    optimizer: OptimizerConfig = Field(description="Optimiser, learning rate and EMA.")
    save: SaveConfig = Field(
        default=SaveConfig(), description="Checkpoints.", json_schema_extra=MAY_CHANGE
    )
    validation: ValidationConfig = Field(
        default=ValidationConfig(),
        description="Loops generated while training.",
        json_schema_extra=MAY_CHANGE,
    )

    @model_validator(mode="after")
    def _suits_distillation(self) -> RunConfig:
        if self.distil is not None and self.validation.loss_clips:
            raise ValueError("validation.loss_clips must be 0 with distil: its target moves")
        if self.distil is not None and self.model.train_text_encoder:
            raise ValueError(
                "model.train_text_encoder must be false with distil: few-step weights are the UNet's"
            )
        return self
