"""Draw the picture of `loopanimate demo`: python assets/draw_bird.py loopanimate_core/data/pictures/bird.png"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image

SIDE_PX = 512
OVERSAMPLING = 3  # drawn larger, then shrunk: smooth edges

Y, X = np.mgrid[-1 : 1 : SIDE_PX * OVERSAMPLING * 1j, -1 : 1 : SIDE_PX * OVERSAMPLING * 1j]


def ellipse(x: float, y: float, width: float, height: float, turn: float = 0.0) -> np.ndarray:
    """Where an ellipse is, `[H, W]`; centre and half axes in half pictures, `turn` in radians."""
    along = (X - x) * np.cos(turn) + (Y - y) * np.sin(turn)
    across = (Y - y) * np.cos(turn) - (X - x) * np.sin(turn)
    return (along / width) ** 2 + (across / height) ** 2 < 1


def shaded(light: str, dark: str, x: float, y: float, reach: float) -> np.ndarray:
    """A ball's colours `[H, W, 3]`: `light` at (x, y), `dark` from `reach` on."""
    share = np.clip(np.hypot(X - x, Y - y) / reach, 0, 1)[..., None] ** 1.5
    return rgb(light) * (1 - share) + rgb(dark) * share


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)], float)


def bird() -> np.ndarray:
    """`[H, W, 3]`, back to front."""
    down = (Y[..., None] + 1) / 2
    picture = rgb("cde4f6") * (1 - down) + rgb("ecf4fa") * down
    body = ellipse(0, 0.05, 0.46, 0.45)
    legs = [(abs(X - x) < 0.022) & (Y > 0.4) & (Y < 0.62) for x in (-0.1, 0.12)]
    layers = [
        (ellipse(-0.47, 0.18, 0.24, 0.10, -0.45), shaded("ff963c", "d65414", -0.5, 0.1, 0.4)),
        (ellipse(-0.45, 0.02, 0.22, 0.09), shaded("ffa042", "dc5c1a", -0.5, -0.05, 0.4)),
        *((leg, rgb("e28c28")) for leg in legs),
        *((ellipse(x, 0.62, 0.085, 0.03), rgb("ec962c")) for x in (-0.055, 0.165)),
        (body, shaded("ffc454", "e8681e", -0.15, -0.2, 0.78)),
        (ellipse(0.12, 0.2, 0.28, 0.27) & body, shaded("fff4dc", "fad4a0", 0.08, 0.1, 0.45)),
        (ellipse(-0.2, 0.14, 0.22, 0.13, 0.35), shaded("fa8c34", "c84810", -0.25, 0.05, 0.32)),
        (ellipse(0.44, -0.03, 0.13, 0.06, 0.12), shaded("ffd650", "e29614", 0.4, -0.08, 0.2)),
        (ellipse(0.2, -0.12, 0.105, 0.115), rgb("ffffff")),
        (ellipse(0.225, -0.115, 0.062, 0.07), rgb("2c1e1a")),
        (ellipse(0.2, -0.145, 0.022, 0.024), rgb("ffffff")),
        (ellipse(0.27, 0.06, 0.06, 0.035), rgb("ff9678")),
        *(
            (ellipse(x, -0.44, 0.028, 0.10, turn), shaded("ffaa46", "e0601c", 0, -0.5, 0.2))
            for x, turn in ((-0.05, -0.5), (0, 0), (0.05, 0.45))
        ),
    ]
    for inside, colour in layers:
        picture = np.where(inside[..., None], colour, picture)
    return picture


if __name__ == "__main__":
    image = Image.fromarray(bird().round().astype(np.uint8))
    image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS).save(sys.argv[1], optimize=True)
