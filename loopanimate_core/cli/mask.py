"""`loopanimate mask`: what would be taken for the picture's subject."""

from __future__ import annotations

import argparse
from pathlib import Path

from .outputs import free_path, require_writable


def mask(arguments: argparse.Namespace) -> int:
    """Write the salient object's mask, of the picture's own size: white on the object."""
    stem = Path(arguments.picture).stem
    output = Path(arguments.output) if arguments.output else free_path(Path(f"{stem}_mask.png"))
    require_writable(output, arguments.force)
    from ..picture.images import load_picture, save_picture
    from ..picture.saliency import salient_mask

    picture = load_picture(arguments.picture)
    found = salient_mask(
        picture.over(),
        alpha=picture.alpha,
        method=arguments.method,
        model_path=arguments.model,
        threshold=arguments.threshold,
        grow_px=arguments.grow,
    )
    save_picture(found, output)
    print(output)
    return 0
