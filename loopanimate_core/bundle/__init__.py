"""Model files: the bundle with everything a model is, its parts, its changes (delta, LoRA)."""

from .bundle import (
    Bundle,
    BundleConfig,
    BundleInfo,
    BundleParts,
    bundle_info,
    mini_bundle_path,
    read_bundle,
    read_parts,
    write_bundle,
)

__all__ = [
    "Bundle",
    "BundleConfig",
    "BundleInfo",
    "BundleParts",
    "bundle_info",
    "mini_bundle_path",
    "read_bundle",
    "read_parts",
    "write_bundle",
]
