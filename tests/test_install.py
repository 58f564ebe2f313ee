"""Installing the extension as ComfyUI Manager does changes nothing that is there.

A real pip installs real wheels, but tiny ones made here, from a folder instead of the network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WHEELS = {  # package: module, and what only this variant has
    "safetensors": "safetensors",
    "numpy": "numpy",
    "pillow": "PIL",
    "imageio-ffmpeg": "imageio_ffmpeg",
    "tqdm": "tqdm",
    "opencv-python-headless": "cv2",
    "opencv-contrib-python": "cv2",
    "onnxruntime": "onnxruntime",
    "onnxruntime-gpu": "onnxruntime",
}


def make_wheel(folder: Path, package: str, version: str) -> None:
    """A wheel whose module says which package it is from."""
    name, module = package.replace("-", "_"), WHEELS[package]
    info = f"{name}-{version}.dist-info"
    files = {
        f"{module}/__init__.py": f"variant = {package!r}\nversion = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)


class Environment:
    """A virtual environment that installs from a folder of wheels."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        venv.create(folder, with_pip=True)
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.site = next(folder.rglob("site-packages"))
        self.settings = {
            **os.environ,
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(wheels),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_CONFIG_FILE": os.devnull,
        }
        self.settings.pop("PYTHONPATH", None)

    def run(self, *arguments: str | Path) -> str:
        command = [str(self.python), *map(str, arguments)]
        done = subprocess.run(command, env=self.settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install_as_manager_does(self) -> str:
        self.run("-m", "pip", "install", "-r", ROOT / "requirements.txt")
        return self.run(ROOT / "install.py")

    def variant(self, module: str) -> str:
        return self.run("-c", f"import {module}; print({module}.variant, {module}.version)").strip()

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.site).as_posix(): path.read_bytes()
            for path in self.site.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for package in WHEELS:
        for version in ("1.0", "2.0"):
            make_wheel(folder, package, version)
    return folder


def test_other_variants_and_old_versions_stay_as_they_are(tmp_path: Path, wheels: Path) -> None:
    environment = Environment(tmp_path / "env", wheels)
    theirs = ["opencv-contrib-python==1.0", "onnxruntime-gpu==1.0", "numpy==1.0", "pillow==1.0"]
    environment.run("-m", "pip", "install", *theirs)
    before = environment.files()
    environment.install_as_manager_does()
    after = environment.files()
    assert {path: after.get(path) for path in before} == before
    assert environment.variant("cv2") == "opencv-contrib-python 1.0"
    assert environment.variant("onnxruntime") == "onnxruntime-gpu 1.0"
    assert environment.variant("tqdm") == "tqdm 2.0"  # what was missing is there now


def test_missing_ones_are_installed_and_no_other_package_changes(
    tmp_path: Path, wheels: Path
) -> None:
    environment = Environment(tmp_path / "env", wheels)
    environment.run("-m", "pip", "install", "numpy==1.0")
    (environment.site / "cv2").mkdir()  # as an uninstalled OpenCV leaves it
    environment.install_as_manager_does()
    assert environment.variant("cv2") == "opencv-python-headless 2.0"
    assert environment.variant("onnxruntime") == "onnxruntime 2.0"
    assert environment.variant("numpy") == "numpy 1.0"


def test_without_a_package_to_install_the_script_says_so_and_succeeds(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "env", tmp_path)
    said = environment.run(ROOT / "install.py")
    assert "opencv-python-headless could not be installed" in said
    assert "onnxruntime could not be installed" in said


@pytest.mark.parametrize("module", ["cv2", "onnxruntime"])
def test_a_missing_module_is_one_sentence(module: str) -> None:
    code = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from loopanimate_core.extras import require_module\n"
        f"require_module({module!r}, 'this feature')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = done.stderr.strip().splitlines()[-1]
    assert f"this feature needs the Python package {module}, which is not installed" in said
