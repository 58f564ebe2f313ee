"""The motion of a loop's frames against frame 0, per layer.

What moves is frame 0 as the *model* drew it, over its own background: most of an autoencoder's error is then the same on
both sides. Poses are found coarse to fine, all frames of the loop together; the simplest model of motion that
explains the frames is kept. At last the still itself is moved, shrunk and sent through the
autoencoder, if there is one, and the poses are corrected by what still differs: this takes the error out
that depends on where the object is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import LoopAnimateError
from .bend import as_layer, box_around, fit_bend
from .canvas import lattice
from .chunks import parallel_frames
from .fill import fill_hole
from .fit import (
    LOOSE,
    OUTLIER_AT_REST,
    PATCH_PX,
    Scene,
    compose,
    cost,
    fit_poses,
    points_back,
    sample,
    usual_error,
)
from .maps import layer_points
from .matte import Layers
from .motion import LayerMotion, Motion
from .pose import AFFINE, MODELS, Anchor

Autoencoder = Callable[[Tensor], Tensor]
"""[n, h, w, 3] in 0..1, to what the model's autoencoder makes of them."""

WORK_PX = 192  # frames larger than this are shrunk for the fit
COARSE, FINE = 1 / 24, 1 / 96  # blur over the frames' width
COARSE_PX = 48  # poses are looked for from afar at this size
GAIN = 0.03  # a richer model must explain so much more of what the simpler one leaves
RICHER_GAIN = 0.07  # the same for a bend of a few numbers
BACKGROUND_GAIN, BEND_GAIN = 0.15, 0.3  # the same for a moving background and for a free bend
MOVING_GAIN = 0.01  # the same for motion in frames that are explained badly
MOST = 0.7  # of what the richest model gains in such frames: a simpler one is then enough
REDRAWN = 8.0  # of the usual squared residual: costs one half in such frames
MIN_REACH_PX = 0.2  # less motion than that is the fit's own noise
MIN_GAIN = 0.003  # of the cost, 0..1: less is grain
WELL_EXPLAINED = 0.03  # a cost that leaves nothing for a bend to explain
RIGID_MODELS = tuple(model for model in MODELS if model != "elastic")
MIN_BARE = 0.05  # of the picture: less background than that says nothing about its motion
MIN_SHARE = 1e-4  # of the picture: a smaller mask shows no object
CORRECTIONS, CORRECTIONS_ALONE = 2, 2  # with and without an autoencoder
OVER_RELAXED = 1.6  # corrections through an autoencoder converge evenly, by about half each


def estimate_motion(
    frames: Tensor, layers: Layers, mask: np.ndarray, autoencoder: Autoencoder | None = None
) -> Motion:
    """The motion of `frames` [P, h, w, 3] in 0..1 against the first.

    Args:
        layers: the part of the still that the frames show, taken apart at any size of their shape.
        mask: [h, w] in 0..1, the object in frame 0.
    """
    threads = torch.get_num_threads()

    def through_autoencoder(pictures: Tensor) -> Tensor:
        assert autoencoder is not None
        with _threads(threads):
            made = autoencoder(pictures)
        if made.shape != pictures.shape or not bool(made.isfinite().all()):
            raise LoopAnimateError(
                f"the autoencoder must return finite frames of the shape {list(pictures.shape)},"
                f" got {list(made.shape)}"
            )
        return made

    with parallel_frames(threads):
        return _estimate(frames, layers, mask, through_autoencoder if autoencoder else None)


def _estimate(
    frames: Tensor, layers: Layers, mask: np.ndarray, autoencoder: Autoencoder | None
) -> Motion:
    scene = read_scene(frames, mask)
    anchor = _anchor(scene.paint[3])
    start = torch.zeros(len(frames), len(MODELS["elastic"]), dtype=torch.float64)
    rest = as_layer("rest", start, anchor)
    if len(frames) == 1:
        return Motion(rest, rest)
    starts, likely = _coarse_poses(scene, start, anchor, tuple(MODELS))
    held = rest if bool((scene.paint[3] > 0.5).all()) else _background(scene, likely, anchor)
    if held.model == "rest":
        points = points_back(likely, anchor, scene.frames)
        scene = replace(reveal_behind(scene, points), outlier=OUTLIER_AT_REST)
    else:
        scene = replace(scene, behind=_moved_behind(scene.behind, held, scene.frames))
    scene = replace(scene, weight=_swept(scene, likely, anchor))
    model, poses = _choose_model(scene, starts, anchor)
    if model == "rest":
        return Motion(rest, held)
    size = (frames.shape[1], frames.shape[2])
    rounds, relaxation = (CORRECTIONS, OVER_RELAXED) if autoencoder else (CORRECTIONS_ALONE, 1.0)
    corrected = scene
    for _ in range(rounds):
        drawn = _redrawn(layers, poses, anchor, held, size, autoencoder)
        error = _moved_error(scene, drawn, poses, anchor)
        copied = compose(scene, points_back(poses, anchor, scene.frames))
        corrected = replace(scene, frames=scene.frames - drawn - error + copied)
        better = fit_poses(corrected, poses, anchor, MODELS[model], 1)
        poses = poses + relaxation * (better - poses)
    posed = as_layer(model, poses, anchor)
    if float(cost(corrected, poses, anchor).mean()) > WELL_EXPLAINED:
        posed = fit_bend(corrected, posed, BEND_GAIN)
    return Motion(posed, held)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """torch computes with `count` threads while the block runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_scene(frames: Tensor, mask: np.ndarray) -> Scene:
    """The model's own frame 0 taken apart by the mask [h, w] of its object, and the frames [P, h, w, 3]."""
    seen = _shrunk(frames.permute(0, 3, 1, 2))
    cover = _shrunk(torch.from_numpy(mask)[None, None])[0]
    if not MIN_SHARE < float(cover.mean()) < 1.0 - MIN_SHARE:
        cover = torch.ones_like(cover)  # no object, or nothing else: the whole picture moves
    behind = _fill(seen[0], _swollen(cover)[0] > 0.01)
    paint = torch.cat([seen[0] - (1.0 - cover) * behind, cover])
    everywhere = torch.ones(1, *cover.shape[1:])
    patch_px = PATCH_PX * seen.shape[-1] / frames.shape[2]
    return Scene(seen, paint, behind[None], everywhere, patch_px)


def reveal_behind(scene: Scene, points: Tensor) -> Scene:
    """The same scene, with the background that the object uncovers as the frames show it.

    `points`: [P, h, w, 2], the point of frame 0 that the object shows at every pixel.
    """
    covered = sample(_swollen(scene.paint[3:]), points)
    bare = (1.0 - covered).clamp(min=0.0).pow(4)
    total = bare.sum(0)
    mean = (scene.frames * bare).sum(0) / total.clamp(min=1e-6)
    return replace(scene, behind=torch.lerp(scene.behind[0], mean, total / (total + 1.0))[None])


def _background(scene: Scene, poses: Tensor, anchor: Anchor) -> LayerMotion:
    """The motion of what the object does not cover; at rest unless the frames say clearly otherwise."""
    covered = sample(_swollen(scene.paint[3:]), points_back(poses, anchor, scene.frames))[:, 0]
    everywhere = torch.ones_like(scene.paint[3:])
    paint = torch.cat([scene.behind[0], everywhere])
    bare = (torch.maximum(covered, _swollen(scene.paint[3:])) < 0.02).float()
    apart = replace(scene, paint=paint, behind=torch.zeros_like(scene.behind), weight=bare)
    middle = _anchor(everywhere[0])
    start = torch.zeros_like(poses[:, :AFFINE])
    rest = as_layer("rest", start, middle)
    if float(bare.mean()) < MIN_BARE:
        return rest
    starts, found = _coarse_poses(apart, start, middle, RIGID_MODELS)
    if not _explains(apart, found, middle, 0.5 * BACKGROUND_GAIN, 0.5 * MIN_GAIN):
        return rest
    model, found = _choose_model(apart, starts, middle)
    if not _explains(apart, found, middle, BACKGROUND_GAIN, MIN_GAIN):
        return rest
    return as_layer(model, found, middle)


def _explains(scene: Scene, poses: Tensor, anchor: Anchor, gain: float, least: float) -> bool:
    """Whether the poses take away a share `gain` of what rest leaves unexplained, and `least` at all."""
    rest, moved = (float(cost(scene, each, anchor).mean()) for each in (0.0 * poses, poses))
    return moved <= (1.0 - gain) * rest - least


def _moved_behind(behind: Tensor, held: LayerMotion, like: Tensor) -> Tensor:
    """[P, 3, h, w]: the background [1, 3, h, w] moved."""
    return sample(behind[0], layer_points(held, like))


def _coarse_poses(
    scene: Scene, start: Tensor, anchor: Anchor, models: Sequence[str]
) -> tuple[dict[str, Tensor], Tensor]:
    """Poses of every model found from afar, each frame helped by its neighbours; and those that are likely, which
    are a richer model's only where it explains clearly more."""
    scene = scene.shrunk(COARSE_PX)
    width = scene.frames.shape[-1]
    far, nearer = scene.blurred(COARSE * width), scene.blurred(0.4 * COARSE * width)
    found = _helped_by_neighbours(
        far, fit_poses(far, start, anchor, MODELS["similarity"], 6), anchor, "similarity"
    )
    found = fit_poses(nearer, found, anchor, MODELS["similarity"], 4)
    starts, likely = dict.fromkeys(models, found), found
    for model in [name for name in ("affine", "elastic") if name in models]:
        found = fit_poses(far, found, anchor, MODELS[model], 4)
        found = _helped_by_neighbours(far, found, anchor, model)
        found = fit_poses(nearer, found, anchor, MODELS[model], 4)
        starts[model] = found
        before, after = (float(cost(nearer, each, anchor).mean()) for each in (likely, found))
        if after < (1.0 - RICHER_GAIN) * before:
            likely = found
    return starts, likely


def _helped_by_neighbours(scene: Scene, poses: Tensor, anchor: Anchor, model: str) -> Tensor:
    """Better poses: a frame that its neighbour's explain better takes them over as a start."""
    for _ in range(4):
        best, lowest = poses, cost(scene, poses, anchor)
        for way in (1, -1):
            borrowed = poses.roll(way, 0).clone()
            borrowed[0] = 0.0
            price = cost(scene, borrowed, anchor)
            better = price < 0.98 * lowest
            best = torch.where(better[:, None], borrowed, best)
            lowest = torch.minimum(lowest, price)
        if torch.equal(best, poses):
            break
        poses = fit_poses(scene, best, anchor, MODELS[model], 4)
    return poses


def _choose_model(scene: Scene, starts: dict[str, Tensor], anchor: Anchor) -> tuple[str, Tensor]:
    """The simplest model that explains the frames nearly as well as the richest, and its poses.

    Args:
        starts: coarse poses of the models that come into question, simplest first.
    """
    near = scene.blurred(FINE * scene.frames.shape[-1])
    fitted: dict[str, Tensor] = {}
    for model in [name for name in starts if name != "elastic"]:
        columns = MODELS[model]
        start = torch.zeros_like(starts[model])
        start[:, list(columns)] = starts[model][:, list(columns)]
        fitted[model] = fit_poses(near, start, anchor, columns, 4)
    model = _simplest(near, fitted, anchor)
    if model == "rest":
        model = _simplest_moving(near, fitted, anchor)
    price = float(cost(near, fitted[model], anchor).mean())
    if "elastic" not in starts or price < WELL_EXPLAINED:
        return model, fitted[model]
    bent = fit_poses(near, starts["elastic"], anchor, MODELS["elastic"], 4)
    if float(cost(near, bent, anchor).mean()) < (1.0 - RICHER_GAIN) * price:
        return "elastic", bent
    return model, fitted[model]


def _simplest(scene: Scene, fitted: dict[str, Tensor], anchor: Anchor) -> str:
    """The first model that costs at most `GAIN` more than the best one."""
    prices = {model: float(cost(scene, poses, anchor).mean()) for model, poses in fitted.items()}
    allowed = (1.0 + GAIN) * min(prices.values()) + 1e-6
    return next(model for model, price in prices.items() if price <= allowed)


def _simplest_moving(scene: Scene, fitted: dict[str, Tensor], anchor: Anchor) -> str:
    """The first model that explains most of the motion which `LOOSE` does not see; rest if there is none.

    A model that redraws what it moves leaves large residuals nearly everywhere. Every motion then costs nearly as much
    as rest, so the loss is made as loose as these residuals, and gains are compared instead of costs. The motion
    must be visible as well: what the fit makes of noise moves nothing.
    """
    error = scene.frames - compose(scene, points_back(fitted["affine"], anchor, scene.frames))
    loose = max(LOOSE, REDRAWN * float(usual_error(error, scene.weight)))
    prices = {
        model: float(cost(scene, poses, anchor, loose).mean()) for model, poses in fitted.items()
    }
    gains = {model: prices["rest"] - price for model, price in prices.items()}
    enough = max(MOST * max(gains.values()), MOVING_GAIN * prices["rest"])
    models = (model for model, gain in gains.items() if gain >= enough)
    model = next(models, "rest")
    return model if _reach_px(scene, fitted[model], anchor) >= MIN_REACH_PX else "rest"


def _reach_px(scene: Scene, poses: Tensor, anchor: Anchor) -> float:
    """How far the layer is from rest, mean over its cover, in the frame where it is farthest."""
    points = points_back(poses, anchor, scene.frames)
    moved = (points - lattice(*points.shape[1:3])).norm(dim=-1)
    cover = scene.paint[3]
    reach = (moved * cover).sum((1, 2)) / cover.sum().clamp(min=1e-6)
    return float(reach.max()) * 0.5 * points.shape[2]


def _redrawn(
    layers: Layers,
    poses: Tensor,
    anchor: Anchor,
    held: LayerMotion,
    size: tuple[int, int],
    autoencoder: Autoencoder | None,
) -> Tensor:
    """[P, 3, h, w] at the fit's size: the still moved, shrunk to the frames, through the autoencoder."""
    paint = torch.from_numpy(layers.paint).permute(2, 0, 1)
    behind = torch.from_numpy(layers.background).permute(2, 0, 1)[None]
    drawn = []
    for part, held_part in zip(poses.split(8), held.poses.split(8), strict=True):
        frames = behind.expand(len(part), -1, -1, -1)
        if held.model != "rest":
            frames = _moved_behind(behind, replace(held, poses=held_part), frames)
        scene = Scene(frames, paint, frames, behind[:, 0])
        drawn.append(_resized(compose(scene, points_back(part, anchor, frames)), size))
    frames = torch.cat(drawn)
    if autoencoder is not None:
        frames = autoencoder(frames.permute(0, 2, 3, 1)).float().cpu().permute(0, 3, 1, 2)
    return _shrunk(frames)


def _moved_error(scene: Scene, drawn: Tensor, poses: Tensor, anchor: Anchor) -> Tensor:
    """[P, 3, h, w]: how `drawn` differs from frame 0, carried along by the layer that it is on."""
    error, cover = scene.frames[0] - drawn[0], scene.paint[3:]
    apart = replace(scene, paint=torch.cat([error * cover, cover]), behind=error[None])
    return compose(apart, points_back(poses, anchor, scene.frames))


def _swept(scene: Scene, poses: Tensor, anchor: Anchor) -> Tensor:
    """[P, h, w], 0 and 1: where the object is in the frame or in frame 0, and a little around it."""
    cover = _swollen(scene.paint[3:])
    covered = sample(cover, points_back(poses, anchor, scene.frames))[:, 0]
    return (torch.maximum(covered, cover) > 0.02).float()


def _anchor(cover: Tensor) -> Anchor:
    """Of a layer with the cover [h, w], which is not empty."""
    points = lattice(*cover.shape)
    total = cover.sum()
    centre = (points * cover[..., None]).sum((0, 1)) / total
    radius = ((points - centre).square().sum(-1) * cover).sum() / total
    return Anchor(centre.double(), float(radius.sqrt().clamp(min=0.05)), box_around(cover))


def _fill(picture: Tensor, hole: Tensor) -> Tensor:
    filled = fill_hole(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()), hole.numpy())
    return torch.from_numpy(filled).permute(2, 0, 1)


def _swollen(cover: Tensor) -> Tensor:
    """[1, h, w] grown by two pixels."""
    return F.max_pool2d(cover[None], 5, 1, 2)[0]


def _shrunk(pictures: Tensor) -> Tensor:
    """[N, C, h, w], at most `WORK_PX` along the longer side."""
    height, width = pictures.shape[-2:]
    scale = min(1.0, WORK_PX / max(height, width))
    return _resized(pictures, (max(1, round(height * scale)), max(1, round(width * scale))))


def _resized(pictures: Tensor, size: Sequence[int]) -> Tensor:
    if tuple(pictures.shape[-2:]) == tuple(size):
        return pictures
    return F.interpolate(
        pictures, size=tuple(size), mode="bicubic", antialias=True, align_corners=False
    ).clamp(0.0, 1.0)
