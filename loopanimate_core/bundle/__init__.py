"""Model files: bundles, their parts, and the changes of a training (deltas, LoRAs)."""

from .bundle import Bundle, mini_bundle_path
from .config import BundleConfig
from .read import BundleInfo, BundleParts, bundle_info, read_bundle, read_parts
from .write import add_few_steps, write_bundle

__all__ = [
    "Bundle",
    "BundleConfig",
    "BundleInfo",
    "BundleParts",
    "add_few_steps",
    "bundle_info",
    "mini_bundle_path",
    "read_bundle",
    "read_parts",
    "write_bundle",
]
