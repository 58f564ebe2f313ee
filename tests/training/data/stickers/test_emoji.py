"""Packed emoji to a cache of stickers, split by family."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from loopanimate_core.errors import LoopAnimateError
from loopanimate_training.config import ClipConfig, DataConfig
from loopanimate_training.data.stickers.emoji import EmojiCache, family_of, is_held_out
from loopanimate_training.data.stickers.packages import download, prepare
from loopanimate_training.data.stickers.source import StickerSource


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1f468-200d-1f33e", "1f469-1f3fd-200d-1f33e"),  # man, woman with a skin tone: farmer
        ("1f3c3-200d-2642-fe0f", "1f3c3-200d-2640-fe0f"),  # man, woman running
        ("1f550", "1f567"),  # clock faces
        ("0023-fe0f-20e3", "0031-fe0f-20e3"),  # keycaps
        ("1f466", "1f467"),  # boy, girl
    ],
)
def test_versions_of_one_drawing_share_a_family(one: str, other: str) -> None:
    assert family_of(one) == family_of(other)


def test_different_drawings_have_different_families() -> None:
    codes = ["1f436", "1f431", "1f468-200d-1f33e", "1f468-200d-1f373", "1f33e", "2764-fe0f"]
    assert len({family_of(code) for code in codes}) == len(codes)


def test_one_family_in_ten_is_held_out() -> None:
    share = np.mean([is_held_out(f"{code:x}") for code in range(0x1F300, 0x1F300 + 3000)])
    assert 0.08 < share < 0.12


def test_no_family_is_on_both_sides(sticker_cache: EmojiCache) -> None:
    sides = [
        {sticker_cache.emoji[row].family for row in sticker_cache.select(held_out)}
        for held_out in (False, True)
    ]
    assert sides[0] and sides[1]
    assert not sides[0] & sides[1]


def test_the_cache_holds_every_sticker_once_without_skin_tones(sticker_cache: EmojiCache) -> None:
    codes = [emoji.hexcode for emoji in sticker_cache.emoji]
    assert len(codes) == len(set(codes)) == 39
    assert not any("1f3fb" in code for code in codes)
    assert sticker_cache.sprites.shape == (39, 48, 48, 4)


def test_names_are_plain_words_and_found_without_variation_selectors(
    sticker_cache: EmojiCache,
) -> None:
    by_code = {emoji.hexcode: emoji for emoji in sticker_cache.emoji}
    assert by_code["1f400"].name == "thing no 0"
    assert by_code["1f590-fe0f"].name == "thing no 39"
    assert by_code["1f400"].tags == ("round",)


def test_only_cut_off_art_touches_the_edge(sticker_cache: EmojiCache) -> None:
    cut = [emoji.hexcode for emoji in sticker_cache.emoji if emoji.touches_edge]
    assert cut == ["1f402"]
    movable = sticker_cache.select(False, movable=True)
    assert len(movable) == len(sticker_cache.select(False)) - 1


def test_clips_begin_with_their_sticker_and_fill_the_file(sticker_cache: EmojiCache) -> None:
    end = 0
    for row, emoji in enumerate(sticker_cache.emoji):
        if emoji.clip_frames:
            assert emoji.clip_start == end
            assert np.array_equal(sticker_cache.clips[emoji.clip_start], sticker_cache.sprites[row])
            end += emoji.clip_frames
    assert end == len(sticker_cache.clips) > 0


def test_hidden_colours_do_not_bleed_into_edges(sticker_cache: EmojiCache) -> None:
    sprite = sticker_cache.sprites[0].astype(int)  # blue = 255 or a grey; red only under alpha 0
    edge = (sprite[..., 3] > 0) & (sprite[..., 3] < 200)
    assert edge.any()
    assert (sprite[edge][:, 2] >= sprite[edge][:, 0] - 2).all()


def test_preparing_twice_gives_the_same_bytes(
    sticker_archives: list[Path], sticker_cache: EmojiCache, tmp_path: Path
) -> None:
    again = prepare(reversed(sticker_archives), tmp_path, sprite_px=48)
    assert again.emoji == sticker_cache.emoji
    assert np.array_equal(again.sprites, sticker_cache.sprites)
    assert not list(tmp_path.glob("*.raw"))


def test_a_folder_without_stickers_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoopAnimateError, match=r"emoji\.json"):
        EmojiCache(tmp_path)


def test_downloading_without_npm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LoopAnimateError, match="npm"):
        download(tmp_path / "archives")


@pytest.mark.parametrize("file", ["emoji.json", "sprites.npy"])
def test_clips_of_other_stickers_have_other_keys(
    sticker_cache: EmojiCache, tmp_path: Path, file: str
) -> None:
    data = DataConfig(source="mini", path=sticker_cache.folder, clips=4)
    clip = ClipConfig(f=2, height_px=32, width_px=32)
    source = StickerSource(data, clip)
    copied = shutil.copytree(sticker_cache.folder, tmp_path / "copy")
    data = data.model_copy(update={"path": copied})
    same = StickerSource(data, clip)
    assert same.key(1) == source.key(1) != source.key(2)
    content = bytearray((copied / file).read_bytes())
    place = content.index(b"thing") if file == "emoji.json" else len(content) - 1
    content[place] ^= 1  # as many stickers as before
    (copied / file).write_bytes(content)
    other = StickerSource(data, clip)
    assert other.key(1) != source.key(1) and other.fingerprint() != source.fingerprint()
