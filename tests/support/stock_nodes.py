"""ComfyUI's own nodes on a LoopAnimate MODEL: what each of them does, as `docs/stock-nodes.md` says it.

`tests/comfy/test_stock_nodes.py` runs every row on a real server and compares it with what is written here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from comfy_graphs import Graph, ksampler_graph, loop_graph, node

CHANGES = "works"
"""The loop is another one."""
SAME = "works, same loop"
"""It runs, and by its nature does not change this loop."""
LATENTS = "works on latents"
"""The number or the size of the frames changes."""
REFUSED = "refused"
"""One sentence before the first step."""


@dataclass(frozen=True)
class StockNode:
    """One row.

    Attributes:
        name: ComfyUI's class of the node.
        effect: one of the constants above.
        says: what the table says of it.
        build: changes a graph of a KSampler so that it uses the node; a toy model, 15 frames.
        sentence: for REFUSED: a part of the message, else empty.
        frames: that are saved.
        side: of the picture in pixels.
    """

    name: str
    effect: str
    says: str
    build: Callable[[Graph], Graph]
    sentence: str = ""
    frames: int = 15
    side: int = 64


def base_graph(side: int = 64) -> Graph:
    """What the rows change: the toy model, sampled by a KSampler."""
    return ksampler_graph("ghost.png", bundle="toy.safetensors", side=side)


def on_model(name: str, **inputs: object) -> Callable[[Graph], Graph]:
    """Between Load LoopAnimate and the sampler."""

    def build(graph: Graph) -> Graph:
        graph["patch"] = node(name, model=["load", 0], **inputs)
        graph["sample"]["inputs"]["model"] = ["patch", 0]
        return graph

    return build


def on_prompt(name: str, wired: str = "conditioning", **inputs: object) -> Callable[[Graph], Graph]:
    """Between Build Loop Conditions and the sampler, on the positive prompt."""

    def build(graph: Graph) -> Graph:
        graph["changed"] = node(name, **{wired: ["build", 0]}, **inputs)
        graph["sample"]["inputs"]["positive"] = ["changed", 0]
        return graph

    return build


def on_both_prompts(name: str, **inputs: object) -> Callable[[Graph], Graph]:
    """On both prompts, for nodes that take them together."""

    def build(graph: Graph) -> Graph:
        graph["changed"] = node(name, positive=["build", 0], negative=["build", 1], **inputs)
        graph["sample"]["inputs"] |= {"positive": ["changed", 0], "negative": ["changed", 1]}
        return graph

    return build


def on_latent(name: str, wired: str = "samples", **inputs: object) -> Callable[[Graph], Graph]:
    """Between Build Loop Conditions and the sampler, on the latent."""

    def build(graph: Graph) -> Graph:
        graph["changed"] = node(name, **{wired: ["build", 2]}, **inputs)
        graph["sample"]["inputs"]["latent_image"] = ["changed", 0]
        return graph

    return build


def with_nodes(changes: Graph, **wires: object) -> Callable[[Graph], Graph]:
    """Other nodes, and other inputs of the sampler."""

    def build(graph: Graph) -> Graph:
        graph |= changes
        graph["sample"]["inputs"] |= wires
        return graph

    return build


def custom_sampling(guider: Graph) -> Callable[[Graph], Graph]:
    """SamplerCustomAdvanced with another guider."""

    def build(graph: Graph) -> Graph:
        return graph | {
            "noise": node("RandomNoise", noise_seed=1),
            **guider,
            "euler": node("KSamplerSelect", sampler_name="euler"),
            "sigmas": node(
                "BasicScheduler", model=["load", 0], scheduler="normal", steps=2, denoise=1
            ),
            "sample": node(
                "SamplerCustomAdvanced",
                noise=["noise", 0],
                guider=["guider", 0],
                sampler=["euler", 0],
                sigmas=["sigmas", 0],
                latent_image=["build", 2],
            ),
        }

    return build


def second_pass(graph: Graph) -> Graph:
    """Loop Sampler, enlarged latents, and a KSampler from half of the noise."""
    stock = graph["sample"]["inputs"]
    graph = loop_graph("ghost.png", bundle="toy.safetensors", side=64) | {
        "larger": node(
            "LatentUpscaleBy", samples=["sample", 0], upscale_method="bislerp", scale_by=1.5
        ),
        "again": node("KSampler", **{**stock, "latent_image": ["larger", 0], "denoise": 0.5}),
    }
    graph["decode"]["inputs"]["samples"] = ["again", 0]
    return graph


WITH_OTHER_PROMPT = {"other": node("CLIPTextEncode", clip=["load", 1], text="rocking")}
BUILT_AGAIN = {
    "built": {
        **base_graph()["build"],
        "inputs": {**base_graph()["build"]["inputs"], "positive": ["other", 0]},
    }
}
FLOW = "predicts v_prediction"

ROWS = [
    # ------------------------------------------------------------------------- patches of the model
    StockNode("FreeU", CHANGES, "as on Stable Diffusion 1.x", on_model("FreeU", b1=1.1, b2=1.2, s1=0.9, s2=0.2)),
    StockNode("FreeU_V2", CHANGES, "as on Stable Diffusion 1.x", on_model("FreeU_V2", b1=1.3, b2=1.4, s1=0.9, s2=0.2)),
    StockNode("PerturbedAttentionGuidance", CHANGES, "one more call of the network in each step", on_model("PerturbedAttentionGuidance", scale=90.0), side=128),
    StockNode("SelfAttentionGuidance", REFUSED, "the network sees the first frame twice; use PerturbedAttentionGuidance", on_model("SelfAttentionGuidance", scale=0.5, blur_sigma=2.0), "Self-Attention Guidance does not work"),
    StockNode("TomePatchModel", CHANGES, "merges pixels within each frame", on_model("TomePatchModel", ratio=0.5)),
    StockNode("HyperTile", CHANGES, "acts if a frame is larger than *tile_size*", on_model("HyperTile", tile_size=32, swap_size=2, max_depth=0, scale_depth=False)),
    StockNode("PatchModelAddDownscale", CHANGES, "Deep Shrink, for sizes above the trained one", on_model("PatchModelAddDownscale", block_number=1, downscale_factor=2.0, start_percent=0.0, end_percent=1.0, downscale_after_skip=True, downscale_method="bicubic", upscale_method="bicubic")),
    StockNode("EasyCache", REFUSED, "for speed use preset *fast* of Loop Sampler", on_model("EasyCache", reuse_threshold=0.2, start_percent=0.15, end_percent=0.95, verbose=False), "EasyCache and LazyCache do not work"),
    StockNode("LazyCache", REFUSED, "as EasyCache", on_model("LazyCache", reuse_threshold=0.2, start_percent=0.15, end_percent=0.95, verbose=False), "EasyCache and LazyCache do not work"),
    StockNode("RescaleCFG", CHANGES, "", on_model("RescaleCFG", multiplier=0.7)),
    StockNode("TCFG", CHANGES, "", on_model("TCFG")),
    StockNode("CFGZeroStar", CHANGES, "", on_model("CFGZeroStar")),
    StockNode("CFGNorm", CHANGES, "", on_model("CFGNorm", strength=1.0)),
    StockNode("Mahiro", CHANGES, "", on_model("Mahiro")),
    StockNode("APG", CHANGES, "", on_model("APG", eta=0.5, norm_threshold=1.0, momentum=0.0)),
    StockNode("Epsilon Scaling", CHANGES, "", on_model("Epsilon Scaling", scaling_factor=1.02)),
    StockNode("FreSca", CHANGES, "choose *freq_cutoff* below half of the latent's side, or nothing is above it", on_model("FreSca", scale_low=1.0, scale_high=2.0, freq_cutoff=1)),
    StockNode("VideoLinearCFGGuidance", CHANGES, "guidance rises from the first frame to the last, so the ends of the loop differ in strength", on_model("VideoLinearCFGGuidance", min_cfg=1.0)),
    StockNode("VideoTriangleCFGGuidance", CHANGES, "guidance rises to the middle of the loop and falls again", on_model("VideoTriangleCFGGuidance", min_cfg=1.0)),
    StockNode("DifferentialDiffusion", SAME, "acts with a noise mask", on_model("DifferentialDiffusion", strength=1.0)),
    StockNode("ModelSamplingDiscrete", SAME, "with what the model predicts; any other choice is refused, because it gives noise", on_model("ModelSamplingDiscrete", sampling="v_prediction", zsnr=False)),
    StockNode("ModelSamplingContinuousEDM", CHANGES, "with what the model predicts, as ModelSamplingDiscrete", on_model("ModelSamplingContinuousEDM", sampling="v_prediction", sigma_max=120.0, sigma_min=0.002)),
    StockNode("ModelSamplingSD3", REFUSED, "for flow models", on_model("ModelSamplingSD3", shift=3.0), FLOW),
    StockNode("ModelSamplingAuraFlow", REFUSED, "for flow models", on_model("ModelSamplingAuraFlow", shift=1.73), FLOW),
    StockNode("ModelSamplingFlux", REFUSED, "for flow models", on_model("ModelSamplingFlux", max_shift=1.15, base_shift=0.5, width=64, height=64), FLOW),
    StockNode("ModelComputeDtype", SAME, "fp32 is what a CPU computes in", on_model("ModelComputeDtype", dtype="fp32")),
    StockNode("ContextWindowsManual", REFUSED, "use closing *windows* of Loop Sampler", on_model("ContextWindowsManual", context_length=8, context_overlap=2, context_schedule="standard_static", context_stride=1, closed_loop=False, fuse_method="pyramid", dim=0), "use closing 'windows'"),
    StockNode("SkipLayerGuidanceDiT", REFUSED, "for other kinds of networks", on_model("SkipLayerGuidanceDiT", double_layers="1", single_layers="1", scale=3.0, start_percent=0.0, end_percent=1.0, rescaling_scale=0.0), "bypass it"),
    StockNode("SkipLayerGuidanceDiTSimple", REFUSED, "for other kinds of networks", on_model("SkipLayerGuidanceDiTSimple", double_layers="1", single_layers="1", start_percent=0.0, end_percent=1.0), "bypass it"),
    StockNode("UNetSelfAttentionMultiply", CHANGES, "all attention within and over frames", on_model("UNetSelfAttentionMultiply", q=1.2, k=1.0, v=1.0, out=1.0)),
    StockNode("UNetCrossAttentionMultiply", CHANGES, "text, picture, and the second attention over frames", on_model("UNetCrossAttentionMultiply", q=1.0, k=1.0, v=1.2, out=1.0)),
    StockNode("UNetTemporalAttentionMultiply", CHANGES, "only its structural values: the layers over frames have other names here", on_model("UNetTemporalAttentionMultiply", self_structural=1.2, self_temporal=1.0, cross_structural=1.0, cross_temporal=1.0)),
    StockNode("ModelMergeSimple", SAME, "here a model with itself", with_nodes({"patch": node("ModelMergeSimple", model1=["load", 0], model2=["load", 0], ratio=0.5)}, model=["patch", 0])),
    StockNode("PerpNeg", CHANGES, "its empty prompt has to go through Build Loop Conditions too", on_model("PerpNeg", empty_conditioning=["build", 0], neg_scale=1.0)),
    # ------------------------------------------------------------------------------------- prompts
    StockNode("ConditioningCombine", CHANGES, "both prompts through Build Loop Conditions", with_nodes(WITH_OTHER_PROMPT | BUILT_AGAIN | {"both": node("ConditioningCombine", conditioning_1=["build", 0], conditioning_2=["built", 0])}, positive=["both", 0])),
    StockNode("ConditioningAverage", CHANGES, "", on_prompt("ConditioningAverage", "conditioning_to", conditioning_from=["negative", 0], conditioning_to_strength=0.5)),
    StockNode("ConditioningConcat", CHANGES, "", on_prompt("ConditioningConcat", "conditioning_to", conditioning_from=["negative", 0])),
    StockNode("ConditioningSetArea", CHANGES, "", on_prompt("ConditioningSetArea", width=64, height=64, x=64, y=0, strength=1.0), side=128),
    StockNode("ConditioningSetAreaPercentage", CHANGES, "", on_prompt("ConditioningSetAreaPercentage", width=1.0, height=0.5, x=0.0, y=0.0, strength=1.0)),
    StockNode("ConditioningSetMask", SAME, "a mask over everything; part of the picture otherwise", with_nodes({"all": node("SolidMask", value=1.0, width=64, height=64), "changed": node("ConditioningSetMask", conditioning=["build", 0], mask=["all", 0], strength=1.0, set_cond_area="default")}, positive=["changed", 0])),
    StockNode("ConditioningSetTimestepRange", CHANGES, "", on_prompt("ConditioningSetTimestepRange", start=0.0, end=0.5)),
    StockNode("ConditioningZeroOut", CHANGES, "", on_prompt("ConditioningZeroOut")),
    StockNode("CLIPSetLastLayer", CHANGES, "", with_nodes({"skip": node("CLIPSetLastLayer", clip=["load", 1], stop_at_clip_layer=-2), "positive": node("CLIPTextEncode", clip=["skip", 0], text="bobbing up and down")})),
    StockNode("CLIPAttentionMultiply", CHANGES, "", with_nodes({"clip": node("CLIPAttentionMultiply", clip=["load", 1], q=1.0, k=1.0, v=1.5, out=1.0), "positive": node("CLIPTextEncode", clip=["clip", 0], text="bobbing up and down")})),
    StockNode("InpaintModelConditioning", REFUSED, "the mask of Build Loop Conditions says what moves", with_nodes({"all": node("SolidMask", value=1.0, width=64, height=64), "changed": node("InpaintModelConditioning", positive=["build", 0], negative=["build", 1], vae=["load", 3], pixels=["image", 0], mask=["all", 0], noise_mask=True)}, positive=["changed", 0], negative=["changed", 1]), "InpaintModelConditioning"),
    StockNode("InstructPixToPixConditioning", REFUSED, "for other models", on_both_prompts("InstructPixToPixConditioning", vae=["load", 3], pixels=["image", 0]), "InstructPixToPix"),
    StockNode("unCLIPConditioning", REFUSED, "the picture comes through Build Loop Conditions", with_nodes({"seen": node("CLIPVisionEncode", clip_vision=["load", 2], image=["image", 0], crop="center"), "changed": node("unCLIPConditioning", conditioning=["build", 0], clip_vision_output=["seen", 0], strength=1.0, noise_augmentation=0.0)}, positive=["changed", 0]), "unCLIP"),
    StockNode("ReferenceLatent", REFUSED, "for editing models", on_prompt("ReferenceLatent", latent=["build", 2]), "Reference Latent"),
    StockNode("FluxGuidance", SAME, "not used, and the log says so", on_prompt("FluxGuidance", guidance=3.5)),
    # ------------------------------------------------------------------------------------- latents
    StockNode("RepeatLatentBatch", LATENTS, "one loop more for each repeat, each closed by itself", on_latent("RepeatLatentBatch", amount=2), frames=30),
    StockNode("LatentBatch", LATENTS, "as RepeatLatentBatch", with_nodes({"changed": node("LatentBatch", samples1=["build", 2], samples2=["build", 2])}, latent_image=["changed", 0]), frames=30),
    StockNode("LatentFromBatch", LATENTS, "a shorter loop", on_latent("LatentFromBatch", batch_index=0, length=9), frames=9),
    StockNode("SetLatentNoiseMask", CHANGES, "only the mask is sampled", with_nodes({"part": node("SolidMask", value=0.5, width=64, height=64), "changed": node("SetLatentNoiseMask", samples=["build", 2], mask=["part", 0])}, latent_image=["changed", 0])),
    StockNode("LatentUpscale", LATENTS, "the still is encoded again at the new size", on_latent("LatentUpscale", upscale_method="bilinear", width=96, height=96, crop="disabled")),
    StockNode("LatentUpscaleBy", LATENTS, "a second pass over a finished loop; it stays closed and has the frames that play", second_pass, frames=14),
    # ------------------------------------------------------------------------------------ sampling
    StockNode("CFGGuider", SAME, "the same numbers as KSampler", custom_sampling({"guider": node("CFGGuider", model=["load", 0], positive=["build", 0], negative=["build", 1], cfg=2.0)})),
    StockNode("BasicGuider", CHANGES, "no guidance", custom_sampling({"guider": node("BasicGuider", model=["load", 0], conditioning=["build", 0])})),
    StockNode("DualCFGGuider", CHANGES, "three branches", custom_sampling({"guider": node("DualCFGGuider", model=["load", 0], cond1=["build", 0], cond2=["build", 0], negative=["build", 1], cfg_conds=2.0, cfg_cond2_negative=3.0, style="regular")})),
    StockNode("KSamplerAdvanced", SAME, "the same numbers as KSampler", with_nodes({"sample": node("KSamplerAdvanced", model=["load", 0], positive=["build", 0], negative=["build", 1], latent_image=["build", 2], add_noise="enable", noise_seed=1, steps=2, cfg=2.0, sampler_name="euler", scheduler="normal", start_at_step=0, end_at_step=10000, return_with_leftover_noise="disable")})),
    StockNode("VAEDecodeTiled", SAME, "tiles of 512 are exact; smaller tiles show their edges", with_nodes({"decode": node("VAEDecodeTiled", samples=["sample", 0], vae=["load", 3], tile_size=512, overlap=64, temporal_size=64, temporal_overlap=8)})),
]  # fmt: skip
"""Every row. Two more, ControlNet and T2I-Adapter, need files; `tests/comfy/native/controls.py` runs them."""


def table() -> str:
    """The table of `docs/stock-nodes.md`."""
    lines = ["| node | result | remarks |", "|---|---|---|"]
    lines += [f"| {row.name} | {row.effect} | {row.says} |" for row in ROWS]
    return "\n".join(lines) + "\n"
