"""Model files: bundles, their parts, and the changes of a training (deltas, LoRAs)."""

from .bundle import Bundle, mini_bundle_path
from .config import BundleConfig
from .places import find_bundle, models_folder
from .read import BundleInfo, BundleParts, bundle_info, read_bundle, read_parts
from .write import add_few_steps, write_bundle

__all__ = [
    "Bundle",
    "BundleConfig",
    "BundleInfo",
    "BundleParts",
    "add_few_steps",
    "bundle_info",
    "find_bundle",
    "mini_bundle_path",
    "models_folder",
    "read_bundle",
    "read_parts",
    "write_bundle",
]
