"""The packages that photographs and photographic cut-outs are taken from."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Literal

Kind = Literal["photographs", "cutouts"]


@dataclass(frozen=True)
class Package:
    """One row: `licence` is that of the package, used where it gives none for the single file.

    A path is used when it matches one of `photographs` or `cutouts` and none of `excluded`; `*`
    matches across folders.
    """

    source: Literal["debian", "pypi", "npm"]
    name: str
    version: str
    licence: str
    photographs: tuple[str, ...] = ()
    cutouts: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name as a folder: npm scopes contain a slash."""
        return self.name.removeprefix("@").replace("/", "-")

    def kind_of(self, path: str) -> Kind | None:
        """What a path inside the package is used as, or None when it is not used."""
        if any(fnmatch(path, pattern) for pattern in self.excluded):
            return None
        if any(fnmatch(path, pattern) for pattern in self.photographs):
            return "photographs"
        if any(fnmatch(path, pattern) for pattern in self.cutouts):
            return "cutouts"
        return None


def _under(folder: str, names: str, end: str = "") -> tuple[str, ...]:
    return tuple(f"*{folder}/{name}{end}" for name in names.split())


# Cartoons, letters, flat drawings and shapes without a clear outline.
_DRAWN_STAMPS = (
    "*/cartoon/*",
    "*/symbols/*",
    "*/clothes/*",
    "*/roadsigns/*",
    "*/flags/*",
    "*/houses/*",
    "*_mirror*",
    "*/hanukkah/*",
    "*/halloween/jack*",
    "*/easter/*",
    "*/body_parts/*",
    "*/mammals/hedgehog.png",
    "*/food/pizza.png",
    "*/dishes/glass.png",
    "*/medical/syringe.png",
    "*/medical/tooth.png",
    "*/lightningbolt.png",
    "*/christmas/Santa.png",
    "*/christmas/candy_cane.png",
    "*/christmas/tree.png",
    "*/christmas/star.png",
    "*/newyears/fireworks*",
    "*/0_sun.png",
    "*/inukshuk-outline.png",
    "*/rugby_goal_posts.png",
    "*/sedan_police.png",
    "*/echidna.png",
)

PACKAGES = (
    Package(
        "debian",
        "gcompris-qt-data",
        "3.1-2",
        "GPL-3+",
        photographs=(
            *_under("erase/resource", "*.webp"),
            *_under("explore_farm_animals/resource/animals", "*.webp"),
            *_under("explore_world_animals/resource/animals", "*.webp"),
            *_under("explore_monuments/resource", "*.webp"),
            *_under("explore_world_music/resource/music", "*.webp"),
            *_under("clickgame/resource", "sea*.webp"),
            *_under("details/resource/image", "*_background.webp"),
            *_under("categorization/resource/images/fishes", "*.webp"),
            *_under("categorization/resource/images/monuments", "*.webp"),
            *_under("categorization/resource/images/others", "*.webp"),
            *_under("categorization/resource/images/renewable", "*.webp"),
            *_under("categorization/resource/images/tools", "*.webp"),
        ),
        excluded=("*Gogh*", "*Eglise*", "*PortraitOf*", "*narwhal*", "*navajo*"),
    ),
    Package(
        "debian",
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "GPL-2",
        cutouts=("*/stamps/*.png",),
        excluded=_DRAWN_STAMPS,
    ),
    Package(
        "debian",
        "mate-backgrounds",
        "1.26.0-1",
        "GPL-2+",
        photographs=("*/mate/nature/*.jpg",),
        excluded=("*/Blinds.jpg",),
    ),
    Package(
        "debian",
        "plasma-workspace-wallpapers",
        "4:5.27.5-2",
        "GPL-2+",
        photographs=_under(
            "wallpapers",
            "Autumn/*/2560x1600.jpg BytheWater/*/2560x1600.jpg "
            "ColdRipple/*/2560x1600.jpg ColorfulCups/*/2560x1600.jpg "
            "DarkestHour/*/2560x1600.jpg EveningGlow/*/2560x1600.jpg "
            "FallenLeaf/*/2560x1600.jpg Grey/*/2560x1600.jpg Kite/*/2560x1600.jpg "
            "OneStandsOut/*/2560x1600.jpg Path/*/2560x1600.jpg "
            "summer_1am/*/2560x1600.jpg",
        ),
    ),
    Package(
        "debian",
        "lomiri-wallpapers-16.04",
        "20.04.0-2",
        "CC-BY-4.0 or CC-BY-SA-4.0",
        photographs=("*/backgrounds/*.jpg",),
        excluded=("*analogpattern*", "*umang*"),
    ),
    Package(
        "debian",
        "lomiri-wallpapers-20.04",
        "20.04.0-2",
        "CC-BY-SA-4.0",
        photographs=_under("backgrounds", "Kleiber*"),
    ),
    Package(
        "debian",
        "opencv-doc",
        "4.6.0+dfsg-12",
        "Apache-2.0",
        photographs=(
            "*/input_images/plant.jpg",
            *_under(
                "examples/data",
                "aero1 aloeL apple baboon board building butterfly "
                "ela_original fruits home leuvenA orange squirrel_cls",
                ".jpg",
            ),
            "*/examples/data/chicky_512.png",
            *_under("html", "CVTES"),
        ),
    ),
    Package(
        "debian",
        "python-kivy-examples",
        "2.1.0-1",
        "Expat",
        photographs=_under(
            "kivy-examples",
            "canvas/kiwi demo/pictures/images/Bubbles demo/pictures/images/Wall",
            ".jpg",
        ),
    ),
    Package(
        "pypi",
        "scikit-image",
        "0.26.0",
        "not stated per picture; package BSD-3-Clause",
        photographs=_under(
            "skimage/data",
            "astronaut.png camera.png chelsea.png coffee.png motorcycle_left.png rocket.jpg",
        ),
    ),
    Package(
        "pypi",
        "scikit-learn",
        "1.9.1",
        "CC-BY-2.0",
        photographs=_under("datasets/images", "china.jpg flower.jpg"),
    ),
    Package("pypi", "imgaug", "0.4.0", "CC-BY-SA-4.0", photographs=("*/quokka.jpg",)),
    Package(
        "pypi",
        "gradio",
        "6.31.0",
        "not stated per picture; package Apache-2.0",
        photographs=_under("media_assets/images", "cheetah.jpg cheetah1.jpg lion.jpg tower.jpg"),
    ),
    Package(
        "npm",
        "adminbsb-materialdesign",
        "1.0.7",
        "not stated per picture; package MIT",
        photographs=(
            "*/image-gallery/*.jpg",
            "*/images/animation-bg.jpg",
            "*/image2/assets/image[12].jpg",
        ),
        excluded=("*/thumb/*",),
    ),
    Package(
        "npm",
        "admin-lte",
        "2.4.18",
        "not stated per picture; package MIT",
        photographs=("*/dist/img/photo[1-4].*",),
    ),
    Package(
        "npm",
        "flexslider",
        "2.7.2",
        "not stated per picture; package GPL-2.0",
        photographs=("*/demo/images/kitchen_adventurer_*.jpg",),
    ),
    Package(
        "npm",
        "@vladmandic/face-api",
        "1.7.15",
        "not stated per picture; package MIT",
        photographs=("*/demo/sample[1-6].jpg",),
    ),
)
