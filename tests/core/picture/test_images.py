"""Reading, fitting and saving pictures."""

import io
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from loopanimate_core.errors import LoopAnimateError
from loopanimate_core.picture.images import (
    Picture,
    fit_mask,
    fit_picture,
    load_picture,
    save_picture,
    to_uint8,
)


def ramp(height: int = 24, width: int = 32) -> np.ndarray:
    """`[H, W, 3]` uint8 with a different value in every corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    blue = np.full_like(rows, 60)
    return np.stack([rows * 255 // height, columns * 255 // width, blue], -1).astype(np.uint8)


def save(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def test_rgb_values_survive(tmp_path):
    picture = load_picture(save(Image.fromarray(ramp()), tmp_path / "my.cat.png"))
    assert picture.rgb.dtype == torch.float32
    assert (picture.height_px, picture.width_px, picture.stem) == (24, 32, "my.cat")
    assert picture.alpha is None
    assert torch.equal(to_uint8(picture.rgb), torch.from_numpy(ramp()))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = Image.fromarray(ramp())
    # What a camera stores so that the viewer's transformation gives the upright picture back.
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = load_picture(save(stored, tmp_path / "photo.png", exif=exif))
    assert torch.equal(to_uint8(picture.rgb), torch.from_numpy(ramp()))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA", "PA"])
def test_eight_bit_modes_become_rgb(tmp_path, mode):
    suffix = ".tif" if mode in ("CMYK", "YCbCr", "PA") else ".png"
    source = Image.fromarray(ramp()).convert("P" if mode == "PA" else mode)
    path = save(source, tmp_path / f"picture{suffix}")
    picture = load_picture(path)
    expected = torch.from_numpy(np.array(source.convert("RGB"))).float() / 255
    assert (picture.rgb - expected).abs().max() < 2.5 / 255
    assert picture.alpha is None, "opaque transparency channels are dropped"


@pytest.mark.parametrize("kind", ["L", "RGB", "P", "RGBA", "LA"])
def test_transparency_becomes_alpha(tmp_path, kind):
    pixels = np.full((20, 20, 4), 200, np.uint8)
    pixels[:10, :, 3] = 0
    pixels[10:, :, 3] = 255
    pixels[:10, :, :3] = 7
    rgba = Image.fromarray(pixels)
    options = {} if kind in ("RGBA", "LA") else {"transparency": 7 if kind == "L" else (7, 7, 7)}
    image = rgba.convert("RGB").convert(kind) if options else rgba.convert(kind)
    if kind == "P":
        image = rgba.convert("RGB").quantize(4)
        options = {"transparency": image.getpixel((0, 0))}
    picture = load_picture(save(image, tmp_path / "picture.png", **options))
    assert picture.alpha is not None
    assert picture.alpha[:10].max() == 0
    assert picture.alpha[10:].min() == 1


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path, suffix):
    grey = np.linspace(0, 65535, 32 * 24).reshape(24, 32).astype(np.uint16)
    picture = load_picture(save(Image.fromarray(grey), tmp_path / f"deep{suffix}"))
    assert np.abs(picture.rgb[..., 1].numpy() - grey / 65535).max() < 1e-6


def test_float_tiff_in_range_or_refused(tmp_path):
    grey = np.linspace(0, 1, 24 * 24).reshape(24, 24).astype(np.float32)
    good = load_picture(save(Image.fromarray(grey), tmp_path / "good.tif"))
    assert np.abs(good.rgb[..., 0].numpy() - grey).max() < 1e-6
    with pytest.raises(LoopAnimateError, match=r"outside 0\.\.1"):
        load_picture(save(Image.fromarray(grey * 9), tmp_path / "bad.tif"))


def test_embedded_profile_is_converted(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    same = load_picture(save(Image.fromarray(ramp()), tmp_path / "a.png", icc_profile=lab))
    assert (to_uint8(same.rgb).int() - torch.from_numpy(ramp()).int()).abs().max() <= 2


def test_broken_profile_is_ignored_with_a_warning(tmp_path, caplog):
    path = save(Image.fromarray(ramp()), tmp_path / "a.png", icc_profile=b"not a profile")
    assert torch.equal(to_uint8(load_picture(path).rgb), torch.from_numpy(ramp()))
    assert "colour profile" in caplog.text


def test_animated_file_gives_its_first_frame_and_a_warning(tmp_path, caplog):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    path = save(frames[0], tmp_path / "wink.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING):
        picture = load_picture(path)
    assert picture.rgb[0, 0].tolist() == [1, 0, 0]
    assert "2 frames" in caplog.text


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif", ".bmp"])
@pytest.mark.parametrize("kept", [0.02, 0.5])
def test_truncated_files_are_one_sentence(tmp_path, suffix, kept):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, Image.registered_extensions()[suffix])
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(buffer.getvalue()[: int(buffer.tell() * kept)])
    with pytest.raises(LoopAnimateError, match=r"damaged or cut off|not a picture"):
        load_picture(path)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20000, 10), (200, 20), (15, 15)])
def test_extreme_shapes_name_the_legal_range(tmp_path, width, height):
    path = save(Image.new("RGB", (width, height)), tmp_path / "odd.png")
    with pytest.raises(
        LoopAnimateError, match=rf"{width} x {height} pixels; .*(at least 16|8 times)"
    ):
        load_picture(path)


def test_decompression_bomb_is_refused_before_decoding(tmp_path):
    path = save(Image.new("1", (30000, 20000)), tmp_path / "bomb.png")
    with pytest.raises(LoopAnimateError, match="178 megapixels"):
        load_picture(path)


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "notes.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    for name in ("notes.png", "empty.png"):
        with pytest.raises(LoopAnimateError, match="not a picture"):
            load_picture(tmp_path / name)
    with pytest.raises(LoopAnimateError, match="folder"):
        load_picture(tmp_path)
    with pytest.raises(LoopAnimateError, match="no picture file"):
        load_picture(tmp_path / "missing.png")
    invisible = save(Image.new("RGBA", (32, 32), (9, 9, 9, 0)), tmp_path / "invisible.png")
    with pytest.raises(LoopAnimateError, match="fully transparent"):
        load_picture(invisible)


@settings(max_examples=30, deadline=None)
@given(
    source=st.tuples(st.integers(16, 90), st.integers(16, 90)),
    target=st.tuples(st.integers(2, 12), st.integers(2, 12)),
    mode=st.sampled_from(["crop", "pad", "stretch"]),
)
def test_fit_gives_the_size_and_keeps_plain_colour(source, target, mode):
    colour = (0.2, 0.4, 0.6)
    picture = torch.tensor(colour).expand(*source, 3)
    fitted = fit_picture(picture, target[0] * 8, target[1] * 8, mode, background=colour)
    assert fitted.shape == (target[0] * 8, target[1] * 8, 3)
    assert (fitted - torch.tensor(colour)).abs().max() < 1e-5


def test_crop_keeps_the_middle_and_pad_keeps_everything():
    picture = torch.zeros(32, 96, 3)
    picture[:, 32:64] = 0.5
    assert (fit_picture(picture, 32, 32, "crop") == 0.5).all()
    padded = fit_picture(picture, 96, 96, "pad")
    assert (padded[:32] == 1).all()
    assert (padded[64:] == 1).all()
    assert torch.equal(padded[32:64], picture)


def test_downscaling_is_antialiased():
    checker = (torch.arange(64)[:, None] + torch.arange(64)[None]).remainder(2).float()
    fitted = fit_picture(checker[..., None].expand(-1, -1, 3), 16, 16)
    assert (fitted[2:-2, 2:-2] - 0.5).abs().max() < 0.02


def test_transparent_pixels_show_the_background_not_their_hidden_colour():
    rgb = torch.tensor([1.0, 0.0, 0.0]).repeat(32, 32, 1)
    rgb[:, :16] = torch.tensor([0.0, 1.0, 0.0])  # hidden under alpha 0
    alpha = torch.zeros(32, 32)
    alpha[:, 16:] = 1
    picture = Picture(rgb, alpha)
    assert fit_picture(picture, 32, 32)[0, 0].tolist() == [1, 1, 1]
    assert fit_picture(picture, 32, 32, background="mean")[0, 0].tolist() == [1, 0, 0]
    assert fit_picture(picture, 16, 16, background=(0, 0, 1))[..., 1].max() < 1e-6


@pytest.mark.parametrize("mode", ["crop", "pad", "stretch"])
def test_mask_lands_where_the_picture_does(mode):
    mask = torch.zeros(50, 80)
    mask[12:40, 30:61] = 1
    fitted = fit_picture(mask[..., None].expand(-1, -1, 3), 64, 48, mode, background=(0, 0, 0))
    assert torch.equal(fit_mask(mask, 64, 48, mode), (fitted[..., 0] > 0.5).float())


@pytest.mark.parametrize("size", [(30, 32), (32, 8), (32, 8200), (-8, 32)])
def test_illegal_sizes_are_named(size):
    with pytest.raises(LoopAnimateError, match=r"multiple of 8 in 16\.\.8192"):
        fit_picture(torch.zeros(32, 32, 3), *size)


def test_to_uint8_rounds_clips_and_removes_nan():
    values = torch.tensor([-1.0, 0.0, 0.4999 / 255, 0.5001 / 255, 1.0, 7.0, float("nan")])
    assert to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255, 0]
    every = torch.arange(256) / 255
    assert to_uint8(every).tolist() == list(range(256))


@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize("channels", [3, 4])
def test_save_and_load_agree(tmp_path, suffix, channels):
    pixels = torch.rand(20, 24, channels, generator=torch.Generator().manual_seed(0))
    picture = load_picture(save_picture(pixels, tmp_path / f"a{suffix}"))
    assert (
        picture.over() - Picture(pixels[..., :3], pixels[..., 3] if channels == 4 else None).over()
    ).abs().max() < 2 / 255
    assert os.listdir(tmp_path) == [f"a{suffix}"]


def test_saving_names_what_is_wrong(tmp_path):
    with pytest.raises(LoopAnimateError, match="must end in one of"):
        save_picture(torch.zeros(16, 16, 3), tmp_path / "a.txt")
    with pytest.raises(LoopAnimateError, match="transparency"):
        save_picture(torch.zeros(16, 16, 4), tmp_path / "a.jpg")
    with pytest.raises(LoopAnimateError, match="cannot write"):
        save_picture(torch.zeros(16, 16, 3), tmp_path / "missing" / "a.png")
    with pytest.raises(LoopAnimateError, match="shape"):
        save_picture(torch.zeros(2, 16, 16, 3), tmp_path / "a.png")
    assert os.listdir(tmp_path) == []
