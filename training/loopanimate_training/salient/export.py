"""Write the network as an ONNX file: scores of one picture, weights in half precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write

from .model import SalientNet

EXPORT_PX = 192
OPSET = 17  # read by onnxruntime since 1.12


class _Scores(nn.Module):
    """Scores in 0..1 of pictures minus 0.5, the convention of IS-Net."""

    def __init__(self, network: SalientNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(pictures + 0.5).sigmoid()


def export_onnx(network: SalientNet, path: Path) -> None:
    """Write `path`: input `[1, 3, 192, 192]`, output `[1, 1, 192, 192]`, both float32.

    Raises:
        LoopAnimateError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise LoopAnimateError("exporting the network needs the package onnx") from error
    example = torch.zeros(1, 3, EXPORT_PX, EXPORT_PX)
    with atomic_write(path) as partial:
        torch.onnx.export(
            _Scores(network).eval().to(memory_format=torch.contiguous_format),  # pyright: ignore[reportCallIssue]
            (example,),
            str(partial),
            input_names=["picture"],
            output_names=["score"],
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(str(partial))
        _halve_weights(model.graph)
        model.producer_name, model.producer_version = "loopanimate", ""
        onnx.checker.check_model(model)
        onnx.save(model, str(partial))


def _halve_weights(graph: Any) -> None:
    """Store every float32 weight as float16 and a Cast, which onnxruntime folds when it loads the file."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < 2:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(
            helper.make_node("Cast", [f"{name}_half"], [name], f"{name}_cast", to=TensorProto.FLOAT)
        )
    for cast in reversed(casts):
        graph.node.insert(0, cast)
