"""Install OpenCV and ONNX Runtime where they are missing; ComfyUI Manager runs this after requirements.txt.

Both come in several packages that share one import name (opencv-python, -contrib-python, -headless; onnxruntime,
-gpu, -directml). Installing one over another breaks extensions that use what only the other has. So nothing is
installed where the import already works, and pip may not change any package that is there.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from loopanimate_core.extras import PACKAGES


def is_missing(module: str) -> bool:
    """Whether no package provides `module`; the empty folder that an uninstalled one may leave does not count."""
    spec = importlib.util.find_spec(module)
    return spec is None or spec.origin is None


def installed_versions() -> str:
    """A constraints file that keeps every installed package as it is."""
    found = {(each.metadata["Name"], each.version) for each in metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found) if name and version)


def install(package: str) -> bool:
    """Install a package with pip without changing another one; False if that is not possible."""
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "installed.txt"
        constraints.write_text(installed_versions(), encoding="utf-8")
        command = [sys.executable, "-m", "pip", "install", "-c", str(constraints), package]
        return subprocess.run(command, check=False).returncode == 0


def main() -> None:
    for module, package in PACKAGES.items():
        if is_missing(module) and not install(package):
            print(
                f"LoopAnimate: {package} could not be installed. The nodes that need it say so; all others work. "
                f"To try again: {sys.executable} -m pip install {package}"
            )


if __name__ == "__main__":
    main()
