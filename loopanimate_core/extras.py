"""Packages that only some features need, and that come in several variants: OpenCV and ONNX Runtime.

None of the variants is a requirement, because installing one over another breaks other ComfyUI extensions;
`install.py` installs one where there is none.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from .errors import LoopAnimateError

PACKAGES = {"cv2": "opencv-python-headless", "onnxruntime": "onnxruntime"}
"""What to install for a module that cannot be imported."""


def require_module(module: str, feature: str) -> ModuleType:
    """Import `cv2` or `onnxruntime`, any variant of it.

    Args:
        feature: what needs it, as the start of the error message.

    Raises:
        LoopAnimateError: it is not installed, or cannot be imported.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == module
        reason = "is not installed" if missing else f"cannot be imported ({error})"
        raise LoopAnimateError(
            f"{feature} needs the Python package {module}, which {reason}; "
            f"install it with: python -m pip install {PACKAGES[module]}"
        ) from error
