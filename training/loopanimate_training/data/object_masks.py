"""Finding the salient object of a frame (Eq. 9), for clips without masks of their own."""

from __future__ import annotations

import hashlib
import logging
from functools import cached_property
from pathlib import Path

from torch import Tensor

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.saliency import BUNDLED_NETWORK, salient_mask
from loopanimate_core.picture.salient_network import has_onnxruntime

GRABCUT = "grabcut"

_log = logging.getLogger(__name__)


class ObjectFinder:
    """Finds the object as `data.saliency` says.

    Args:
        saliency: an ONNX network, `grabcut`, or None for the network in the package.

    Raises:
        LoopAnimateError: there is no such network.
    """

    def __init__(self, saliency: Path | str | None) -> None:
        if isinstance(saliency, Path) and not saliency.is_file():
            raise LoopAnimateError(
                f"data.saliency is {saliency}, which is not a file; it names an ONNX network, or is {GRABCUT}"
            )
        if saliency is None and not has_onnxruntime():
            _log.warning("onnxruntime is not installed, so objects are found with GrabCut alone")
            saliency = GRABCUT
        self._network = None if saliency is None else Path(saliency)
        self._grabcut = saliency == GRABCUT

    @cached_property
    def fingerprint(self) -> str:
        """What the masks depend on besides the frame: the method, and a hash of the network."""
        if self._grabcut:
            return GRABCUT
        digest = hashlib.sha256((self._network or BUNDLED_NETWORK).read_bytes()).hexdigest()[:16]
        return f"network {digest}" if self._network else f"network {digest}, refined by colours"

    def __call__(self, picture: Tensor, name: str) -> Tensor:
        """Mask `[H, W]` in {0, 1} of a picture `[H, W, 3]` in 0..1; `name` is for warnings."""
        if self._grabcut:
            return salient_mask(picture, method="grabcut", name=name)
        return salient_mask(picture, method="onnx", model_path=self._network, name=name)
