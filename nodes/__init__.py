"""The ComfyUI nodes: the only code that imports ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .build_loop_conditions import BuildLoopConditions
from .chain_loops import ChainLoops
from .detail_transfer import DetailTransfer
from .folders import register_folders
from .interpolate_loop import InterpolateLoop
from .load_loopanimate import LoadLoopAnimate
from .load_picture_from_folder import LoadPictureFromFolder
from .loop_check import LoopCheck
from .loop_interpolation import LoopAfterInterpolation, LoopForInterpolation
from .loop_sampler import LoopSampler
from .prompt_travel import PromptTravel
from .routes import add_routes
from .salient_mask import SalientMask
from .sample_picture import offer_sample_picture
from .save_loop import SaveLoop
from .seed_hunt import SeedHunt

register_folders()
offer_sample_picture()
add_routes()

NODES: list[type[io.ComfyNode]] = [
    LoadLoopAnimate,
    LoadPictureFromFolder,
    SalientMask,
    BuildLoopConditions,
    LoopSampler,
    LoopCheck,
    SaveLoop,
    ChainLoops,
    LoopForInterpolation,
    LoopAfterInterpolation,
    DetailTransfer,
    PromptTravel,
    SeedHunt,
    InterpolateLoop,
]
"""Every node, in menu order."""


class LoopAnimateExtension(ComfyExtension):
    """Gives ComfyUI the list of nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
