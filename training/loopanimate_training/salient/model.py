"""A small U-Net for salient objects: 0.9 million parameters, one logit per pixel."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ConvNorm(nn.Sequential):
    """A 3 x 3 convolution and batch norm, which the ONNX export folds into it."""

    def __init__(self, inner: int, outer: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inner, outer, 3, stride, dilation, dilation, bias=False),
            nn.BatchNorm2d(outer),
        )


class Residual(nn.Module):
    """Two convolutions around a shortcut (He et al. 2016)."""

    def __init__(self, width: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = ConvNorm(width, width)
        self.second = ConvNorm(width, width, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Down(nn.Module):
    """Half the size, then residual blocks."""

    def __init__(self, inner: int, outer: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.shrink = ConvNorm(inner, outer, stride=2)
        self.blocks = nn.Sequential(*(Residual(outer, dilation) for dilation in dilations))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(F.relu(self.shrink(x)))


class Up(nn.Module):
    """Twice the size, joined with the encoder's features of that size."""

    def __init__(self, inner: int, skip: int, outer: int) -> None:
        super().__init__()
        self.from_below = nn.Conv2d(inner, outer, 1)
        self.from_skip = nn.Conv2d(skip, outer, 1)
        self.mix = ConvNorm(outer, outer)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        below = F.interpolate(
            self.from_below(x), scale_factor=2, mode="bilinear", align_corners=False
        )
        joined = F.relu(below + self.from_skip(skip))
        return F.relu(joined + self.mix(joined))


class SalientNet(nn.Module):
    """Logits `[N, 1, H, W]` of pictures `[N, 3, H, W]` in 0..1; H and W are multiples of 32.

    In training mode it returns a coarse map `[N, 1, H/4, W/4]` as well, for supervision in depth.
    """

    def __init__(self, widths: tuple[int, ...] = (16, 32, 64, 96, 128)) -> None:
        super().__init__()
        w0, w1, w2, w3, w4 = widths
        self.stem = ConvNorm(3, w0, stride=2)
        self.down1 = Down(w0, w1, (1,))
        self.down2 = Down(w1, w2, (1,))
        self.down3 = Down(w2, w3, (1, 2))
        self.down4 = Down(w3, w4, (2,))
        self.context = nn.Linear(w4, w4)
        self.up3 = Up(w4, w3, 64)
        self.up2 = Up(64, w2, 48)
        self.up1 = Up(48, w1, 32)
        self.up0 = Up(32, w0, 16)
        self.coarse = nn.Conv2d(32, 1, 1)
        self.head = nn.Conv2d(16, 4, 3, padding=1)  # the four pixels of each 2 x 2 square

    def forward(self, pictures: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        s0 = F.relu(self.stem(pictures * 4 - 2))
        s1 = self.down1(s0)
        s2 = self.down2(s1)
        s3 = self.down3(s2)
        x = self.down4(s3)
        x = F.relu(x + self.context(x.mean((2, 3)))[:, :, None, None])
        x1 = self.up1(self.up2(self.up3(x, s3), s2), s1)
        logits = F.pixel_shuffle(self.head(self.up0(x1, s0)), 2)
        return (logits, self.coarse(x1)) if self.training else logits
