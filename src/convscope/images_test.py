"""Pictures, against files made here byte by byte or by Pillow, and pixel values worked out by hand."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageFile
from torch.testing import assert_close

from convscope.errors import ConvscopeError, ImageError, OptionError, OutputError
from convscope.images import (
    FORMATS,
    atomic_write,
    check_images,
    find_images,
    fit,
    read_image,
    read_recipe,
    resize,
    to_pil,
    to_uint8,
    unfit,
    write_image,
)

# --- files -----------------------------------------------------------------------------------------------------------


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, color: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG file made by hand; ``rows`` without filter bytes, ``extra`` chunks go before the pixels."""
    stride = -(-width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color] // 8)
    lines = b"".join(b"\0" + rows[i : i + stride] for i in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def tiff(width: int, height: int, bits: int, pixels: bytes, photometric: int = 1) -> bytes:
    """A little-endian, uncompressed TIFF file of one channel and one strip."""
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: 1, 278: height, 279: len(pixels)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", 0) + pixels


def rgb_of(*colours: tuple[float, float, float]) -> torch.Tensor:
    """One row of pixels, given as 0 to 255, as (3, 1, W) in [0, 1]."""
    return torch.tensor(colours, dtype=torch.float64).T[:, None].div(255).float()


def row(mode: str, *pixels: Any) -> Image.Image:
    image = Image.new(mode, (len(pixels), 1))
    for x, pixel in enumerate(pixels):
        image.putpixel((x, 0), pixel)
    return image


LEVEL = 1 / 255
COLOURS = ((255, 0, 0), (0, 255, 0), (10, 20, 30), (255, 255, 255), (0, 0, 0))
EXACT = {"PNG": {}, "TIFF": {}, "BMP": {}, "PPM": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", EXACT)
def test_lossless_files_give_their_pixels(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{kind.lower()}"
    path.write_bytes(encoded(row("RGB", *COLOURS), kind, **EXACT[kind]))
    image = read_image(path)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert_close(image, rgb_of(*COLOURS), rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "MPO"])
def test_lossy_files_come_close(kind: str) -> None:
    flat = Image.new("RGB", (32, 32), (200, 100, 50))
    image = read_image(encoded(flat, kind, quality=95))
    assert_close(image, rgb_of((200, 100, 50)).expand(3, 32, 32), rtol=0, atol=3 * LEVEL)


def test_the_same_picture_from_path_bytes_file_pil_array_and_tensor(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), "PNG")
    path = tmp_path / "picture.png"
    path.write_bytes(data)
    expected = torch.tensor(pixels).permute(2, 0, 1) / 255

    class OnlyRead:  # as an answer from the web
        def read(self) -> bytes:
            return data

    with open(path, "rb") as file:
        file.seek(5)  # a file that was just written stands at its end
        sources: list[Any] = [
            path, str(path), data, bytearray(data), memoryview(data), io.BytesIO(data), file, OnlyRead(),
            Image.fromarray(pixels), pixels, torch.tensor(pixels).permute(2, 0, 1), expected, expected.double(),
        ]  # fmt: skip
        for source in sources:
            assert torch.equal(read_image(source), expected), type(source)
        assert not file.closed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(encoded(row("RGB", *COLOURS), "PNG"),))
    writer.start()
    assert_close(read_image(pipe), rgb_of(*COLOURS))
    writer.join()


# --- modes -----------------------------------------------------------------------------------------------------------


def test_grey_and_one_bit() -> None:
    assert_close(read_image(encoded(row("L", 0, 51, 255), "PNG")), rgb_of((0,) * 3, (51,) * 3, (255,) * 3))
    assert_close(read_image(encoded(row("1", 0, 255, 0), "PNG")), rgb_of((0,) * 3, (255,) * 3, (0,) * 3))


def test_alpha_is_laid_on_white() -> None:
    image = read_image(encoded(row("RGBA", (255, 0, 0, 255), (255, 0, 0, 51), (9, 9, 9, 0)), "PNG"))
    assert_close(image, rgb_of((255, 0, 0), (255, 204, 204), (255, 255, 255)))  # 0.2 * red + 0.8 * white
    image = read_image(encoded(row("LA", (0, 255), (0, 102), (77, 0)), "PNG"))
    assert_close(image, rgb_of((0,) * 3, (153,) * 3, (255,) * 3))


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha(mode: str) -> None:
    straight = row("LA", (100, 255), (100, 0)) if mode == "La" else row("RGBA", (100, 50, 200, 255), (1, 2, 3, 0))
    expected = rgb_of((100,) * 3, (255,) * 3) if mode == "La" else rgb_of((100, 50, 200), (255, 255, 255))
    assert_close(read_image(straight.convert(mode)), expected)


def palette(*colours: tuple[int, int, int]) -> Image.Image:
    image = row("P", *range(len(colours)))
    image.putpalette([value for colour in colours for value in colour])
    return image


def test_palettes_and_their_transparency() -> None:
    image = palette((255, 0, 0), (0, 0, 255), (0, 255, 0))
    assert_close(read_image(encoded(image, "PNG")), rgb_of((255, 0, 0), (0, 0, 255), (0, 255, 0)))
    one = read_image(encoded(image, "PNG", transparency=1))
    assert_close(one, rgb_of((255, 0, 0), (255, 255, 255), (0, 255, 0)))
    many = read_image(encoded(image, "PNG", transparency=bytes([255, 204, 0])))
    assert_close(many, rgb_of((255, 0, 0), (51, 51, 255), (255, 255, 255)))
    assert_close(read_image(image), rgb_of((255, 0, 0), (0, 0, 255), (0, 255, 0)))


def test_one_colour_marked_transparent() -> None:
    grey = png(3, 1, 8, 0, bytes([0, 100, 200]), chunk(b"tRNS", struct.pack(">H", 100)))
    assert_close(read_image(grey), rgb_of((0,) * 3, (255,) * 3, (200,) * 3))
    colour = png(2, 1, 8, 2, bytes([9, 8, 7, 1, 2, 3]), chunk(b"tRNS", struct.pack(">HHH", 9, 8, 7)))
    assert_close(read_image(colour), rgb_of((255,) * 3, (1, 2, 3)))
    deep = png(2, 1, 16, 0, struct.pack(">HH", 1000, 1001), chunk(b"tRNS", struct.pack(">H", 1000)))
    assert_close(read_image(deep), torch.tensor([1, 1001 / 65535]).expand(3, 1, 2))


def test_cmyk_without_a_profile() -> None:
    inks = row("CMYK", (0, 0, 0, 0), (255, 0, 0, 0), (0, 255, 255, 0), (0, 0, 0, 255), (0, 0, 0, 51))
    expected = rgb_of((255, 255, 255), (0, 255, 255), (255, 0, 0), (0, 0, 0), (204, 204, 204))
    assert_close(read_image(encoded(inks, "TIFF")), expected)
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    jpeg = read_image(encoded(flat, "JPEG", quality=100))
    assert_close(jpeg, rgb_of((255, 0, 0)).expand(3, 16, 16), rtol=0, atol=3 * LEVEL)


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "RGBX", "LAB"])
def test_other_colour_spaces(mode: str) -> None:
    image = read_image(row("RGB", (200, 100, 50), (128, 128, 128)).convert(mode))
    assert_close(image, rgb_of((200, 100, 50), (128, 128, 128)), rtol=0, atol=4 * LEVEL)


DEEP = np.array([[0, 1, 255, 256, 32768, 65535]], np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        png(6, 1, 16, 0, DEEP.astype(">u2").tobytes()),
        tiff(6, 1, 16, DEEP.astype("<u2").tobytes()),
        tiff(6, 1, 16, (65535 - DEEP).astype("<u2").tobytes(), photometric=0),
        b"P5 6 1 65535\n" + DEEP.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "tiff, white is zero", "pgm"],
)
def test_sixteen_bits_of_grey_are_all_kept(data: bytes) -> None:
    expected = torch.tensor(DEEP.astype(np.float64) / 65535).float().expand(3, 1, 6)
    assert_close(read_image(data), expected, rtol=0, atol=1e-7)


def test_sixteen_bit_images_of_pillow_and_numpy() -> None:
    expected = torch.tensor(DEEP.astype(np.float64) / 65535).float().expand(3, 1, 6)
    for mode, order in (("I;16", "<u2"), ("I;16B", ">u2"), ("I", "<i4")):
        image = Image.frombytes(mode, (6, 1), DEEP.astype(order).tobytes())
        assert_close(read_image(image), expected, rtol=0, atol=1e-7)
    for array in (DEEP, DEEP.astype(">u2"), DEEP[..., None]):
        assert_close(read_image(array), expected, rtol=0, atol=1e-7)


def test_twelve_bits() -> None:
    values = (0, 4095, 1024, 3)
    packed = b"".join(struct.pack(">I", (a << 12) | b)[1:] for a, b in zip(values[::2], values[1::2], strict=True))
    assert_close(read_image(tiff(4, 1, 12, packed)), torch.tensor(values).div(4095).expand(3, 1, 4))


def test_sixteen_bits_of_colour_are_read_with_eight() -> None:
    levels = (0, 65535, 32896)  # 32896 = 128 * 257
    image = read_image(png(1, 1, 16, 2, struct.pack(">HHH", *levels)))
    assert_close(image, rgb_of((0, 255, 128)))
    image = read_image(png(1, 1, 16, 6, struct.pack(">HHHH", *levels, 0)))
    assert_close(image, rgb_of((255, 255, 255)))


def test_whole_numbers_beyond_sixteen_bits() -> None:
    with pytest.raises(ImageError, match=r"whole numbers from 0 to 70000; scale them to 0\.\.65535"):
        read_image(Image.fromarray(np.array([[0, 70000]], np.int32)))


def test_float_tiff() -> None:
    values = np.array([[0, 0.123456, 1]], np.float32)
    assert_close(read_image(encoded(Image.fromarray(values), "TIFF")), torch.tensor(values).expand(3, 1, 3))
    with pytest.raises(ImageError, match=r"from 0 to 200 instead of \[0, 1\]; divide by 255"):
        read_image(encoded(Image.fromarray(np.array([[0, 200]], np.float32)), "TIFF"))
    with pytest.raises(ImageError, match=r"holds NaN at \(0, 1\)"):
        read_image(encoded(Image.fromarray(np.array([[0, np.nan]], np.float32)), "TIFF"))


def test_the_first_frame_is_taken() -> None:
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    expected = rgb_of((255, 0, 0)).expand(3, 4, 4)
    for kind, options in (("GIF", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("PNG", {})):
        assert_close(read_image(encoded(red, kind, save_all=True, append_images=[blue], **options)), expected)


def test_a_pil_image_is_read_at_its_frame() -> None:
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    image = Image.open(io.BytesIO(encoded(red, "GIF", save_all=True, append_images=[blue])))
    image.seek(1)
    assert_close(read_image(image), rgb_of((0, 0, 255)).expand(3, 4, 4))


def test_a_transparent_gif() -> None:
    image = palette((255, 0, 0), (0, 0, 255))
    assert_close(read_image(encoded(image, "GIF", transparency=1)), rgb_of((255, 0, 0), (255, 255, 255)))


# --- EXIF and ICC ----------------------------------------------------------------------------------------------------

TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNS)
def test_exif_rotation(kind: str, orientation: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = read_image(encoded(Image.fromarray(pixels), kind, exif=exif, **EXACT[kind]))
    assert_close(image, torch.tensor(TURNS[orientation](pixels).copy()).permute(2, 0, 1) / 255)
    assert image.is_contiguous()


def test_exif_rotation_of_a_jpeg_and_of_sixteen_bits() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is on the right: the camera was held upright
    halves = Image.new("RGB", (64, 32), "black")
    halves.paste((255, 255, 255), (0, 0, 32, 32))
    image = read_image(encoded(halves, "JPEG", exif=exif))
    assert image.shape == (3, 64, 32)
    assert_close(image.mean((0, 2))[[0, -1]], torch.tensor([1.0, 0.0]), rtol=0, atol=0.02)
    deep = Image.frombytes("I;16", (6, 1), DEEP.tobytes())
    assert_close(read_image(encoded(deep, "PNG", exif=exif))[0, :, 0], torch.tensor(DEEP[0].astype(np.float32)) / 65535)


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_orientations_that_do_not_exist_are_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert_close(read_image(encoded(row("RGB", *COLOURS), "PNG", exif=exif)), rgb_of(*COLOURS))


def test_a_broken_exif_block_does_not_hide_the_picture() -> None:
    data = encoded(row("RGB", *COLOURS), "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12garbage")
    assert_close(read_image(data), rgb_of(*COLOURS))


def srgb_profile() -> bytearray:
    return bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())


def tag_entry(profile: bytearray, name: bytes) -> int:
    """Where the table of tags names ``name``; the offset of its data is 4 bytes on."""
    return profile.index(name, 128)


def linear_profile() -> bytearray:
    """sRGB's primaries with the curve y = x instead of its own."""
    profile = srgb_profile()
    (offset,) = struct.unpack_from(">I", profile, tag_entry(profile, b"rTRC") + 4)
    assert profile[offset : offset + 4] == b"para"
    struct.pack_into(">HHI", profile, offset + 8, 0, 0, 0x00010000)  # y = x ** 1.0
    return profile


def swapped_profile() -> bytearray:
    """sRGB with red and green changing places."""
    profile = srgb_profile()
    red, green = tag_entry(profile, b"rXYZ"), tag_entry(profile, b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return profile


def linear_grey_profile() -> bytearray:
    profile = linear_profile()
    profile[16:20] = b"GRAY"
    curve = tag_entry(profile, b"rTRC")
    profile[curve : curve + 4] = b"kTRC"
    return profile


def black_only_profile() -> bytes:
    """A CMYK profile by whose light only the black ink shows: L* = 100 (1 - K), a* = b* = 0."""
    ramp = bytes(range(256))
    clut = b"".join(bytes([0 if node & 1 else 255, 128, 128]) for node in range(16))  # K varies fastest
    matrix = struct.pack(">9i", *(0x10000 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + clut + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    tags, offset, table, body = {b"A2B0": lut, b"wtpt": white}, 128 + 4 + 2 * 12, b"", b""
    for name, data in tags.items():
        padded = data + b"\0" * (-len(data) % 4)
        table += struct.pack(">4sII", name, offset + len(body), len(data))
        body += padded
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"lcms", 0x02100000, b"prtr", b"CMYK", b"Lab ", b"\0" * 12, b"acsp")
    illuminant = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    header = (header + b"\0" * 28 + illuminant).ljust(128, b"\0")
    return header + struct.pack(">I", len(tags)) + table + body


def srgb_curve(light: float) -> float:
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def test_a_linear_profile_is_converted_to_srgb() -> None:
    greys = (0, 13, 64, 128, 255)
    expected = torch.tensor([srgb_curve(g / 255) for g in greys]).expand(3, 1, 5)
    for image in (row("RGB", *((g, g, g) for g in greys)), row("L", *greys)):
        read = read_image(encoded(image, "PNG", icc_profile=bytes(linear_profile())))
        assert_close(read, expected, rtol=0, atol=1.5 * LEVEL)
    assert srgb_curve(64 / 255) == pytest.approx(0.538, abs=1e-3)  # far from 64 / 255


def test_a_profile_with_red_and_green_swapped_swaps_them() -> None:
    profile = bytes(swapped_profile())
    expected = rgb_of((0, 255, 0), (255, 0, 0), (80, 160, 40))
    pixels = ((255, 0, 0), (0, 255, 0), (160, 80, 40))
    assert_close(
        read_image(encoded(row("RGB", *pixels), "TIFF", icc_profile=profile)), expected, rtol=0, atol=2 * LEVEL
    )
    paletted = palette(*pixels)
    assert_close(read_image(encoded(paletted, "PNG", icc_profile=profile)), expected, rtol=0, atol=2 * LEVEL)
    clear = row("RGBA", *((*pixel, 255) for pixel in pixels[:2]), (160, 80, 40, 0))
    assert_close(
        read_image(encoded(clear, "PNG", icc_profile=profile)),
        rgb_of((0, 255, 0), (255, 0, 0), (255, 255, 255)),
        rtol=0,
        atol=2 * LEVEL,
    )


def test_grey_profiles_at_every_depth() -> None:
    profile = bytes(linear_grey_profile())
    expected = torch.tensor([0, srgb_curve(64 / 255), 1]).expand(3, 1, 3)
    images = [
        row("L", 0, 64, 255),
        Image.frombytes("I;16", (3, 1), np.array([0, 64 * 257, 65535], np.uint16).tobytes()),
        Image.fromarray(np.array([[0, 64 / 255, 1]], np.float32)),
    ]
    for image in images:
        data = encoded(image, "TIFF", icc_profile=profile)
        assert_close(read_image(data), expected, rtol=0, atol=1.5 * LEVEL)
    half_clear = encoded(row("LA", (64, 255), (64, 0)), "PNG", icc_profile=profile)
    assert_close(read_image(half_clear)[0, 0], torch.tensor([srgb_curve(64 / 255), 1]), rtol=0, atol=1.5 * LEVEL)


def test_a_cmyk_profile_replaces_the_plain_formula() -> None:
    inks = row("CMYK", (0, 0, 0, 0), (255, 255, 255, 0), (0, 0, 0, 255), (255, 0, 0, 127))
    image = read_image(encoded(inks, "TIFF", icc_profile=black_only_profile()))
    light = ((100 * (1 - 127 / 255) + 16) / 116) ** 3  # CIE 1976 lightness to luminance
    expected = torch.tensor([1, 1, 0, srgb_curve(light)]).expand(3, 1, 4)
    assert_close(image, expected, rtol=0, atol=2 * LEVEL)


def test_an_srgb_profile_changes_nothing_at_all() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), "PNG", icc_profile=bytes(srgb_profile()))
    assert torch.equal(read_image(data), torch.tensor(pixels).permute(2, 0, 1) / 255)


def test_a_profile_that_is_srgb_but_for_rounding_changes_nothing_either() -> None:
    profile = srgb_profile()
    (offset,) = struct.unpack_from(">I", profile, tag_entry(profile, b"rTRC") + 4)
    (gamma,) = struct.unpack_from(">i", profile, offset + 12)
    struct.pack_into(">i", profile, offset + 12, gamma + 1000)  # 2.4 -> 2.415
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    source, target = ImageCms.ImageCmsProfile(io.BytesIO(bytes(profile))), ImageCms.createProfile("sRGB")
    converted = np.asarray(ImageCms.profileToProfile(image, source, target)).astype(int)
    assert np.abs(converted - pixels).max() == 1  # what would have been lost
    data = encoded(image, "PNG", icc_profile=bytes(profile))
    assert torch.equal(read_image(data), torch.tensor(pixels).permute(2, 0, 1) / 255)


@pytest.mark.parametrize(
    "profile",
    [b"not a profile", bytes(srgb_profile()[:200]), black_only_profile(), bytes(linear_grey_profile())],
    ids=["text", "cut off", "of other channels", "of one channel"],
)
def test_profiles_that_do_not_fit_are_ignored(profile: bytes) -> None:
    assert_close(read_image(encoded(row("RGB", *COLOURS), "PNG", icc_profile=profile)), rgb_of(*COLOURS))


# --- what is refused -------------------------------------------------------------------------------------------------


def test_paths_that_hold_no_picture(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg").write_bytes(encoded(Image.new("RGB", (2, 2)), "JPEG"))
    (tmp_path / "empty.png").touch()
    (tmp_path / "letter.jpg").write_text("Dear network, BM\n")
    complaints = {
        "cta.jpg": "there is no such file; did you mean 'cat.jpg'",
        "nowhere/cat.jpg": "and no folder",
        ".": "is a folder; name one picture in it",
        "empty.png": "is empty: 0 bytes",
        "letter.jpg": r"is not a picture of a kind that is read \(JPEG, PNG, WebP, GIF, TIFF, BMP or PPM\)",
        "nul\0.png": "cannot be opened",
    }
    for name, complaint in complaints.items():
        with pytest.raises(ImageError, match=complaint) as caught:
            read_image(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path))
        assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="addresses are not fetched"):
        read_image("https://example.org/cat.jpg")


@pytest.mark.parametrize("source", [None, 3, ["cat.jpg"], object()])
def test_sources_of_no_use(source: Any) -> None:
    with pytest.raises(ImageError, match=r"cannot read a picture from .*; give a path"):
        read_image(source)


def test_files_opened_as_text_or_closed(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(row("RGB", *COLOURS), "PNG"))
    with open(path) as file, pytest.raises(ImageError, match=r"picture\.png is open as text; open it with mode 'rb'"):
        read_image(file)  # type: ignore[arg-type]
    with open(path, "rb") as closed:
        pass
    with pytest.raises(ImageError, match=r"picture\.png cannot be read: .*closed file"):
        read_image(closed)
    image = Image.open(path)
    image.close()
    with pytest.raises(ImageError, match="picture"):
        read_image(image)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.touch(0o000)
    with pytest.raises(ImageError, match=r"secret\.png cannot be opened: Permission denied"):
        read_image(path)


def test_a_postscript_file_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "picture.eps"
    path.write_bytes(encoded(Image.new("RGB", (4, 4)), "EPS"))
    with pytest.raises(ImageError, match="not a picture of a kind that is read"):
        read_image(path)


def test_a_truncated_jpeg_names_the_file_and_the_cause(tmp_path: Path) -> None:
    path = tmp_path / "half.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "JPEG")
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"half\.jpg is truncated or damaged \(image file is truncated"):
        read_image(path)
    with Image.open(path) as image, pytest.raises(ImageError, match=r"half\.jpg is truncated"):
        read_image(image)


def sample_files() -> dict[str, bytes]:
    y, x = np.mgrid[0:16, 0:18]
    image = Image.fromarray(np.stack([x * 14, y * 15, (x * y) % 256], -1).astype(np.uint8))
    extras = {"exif": Image.Exif(), "icc_profile": bytes(linear_profile())}
    extras["exif"][0x0112] = 6
    return {
        "jpeg": encoded(image, "JPEG", **extras),
        "progressive": encoded(image, "JPEG", progressive=True),
        "cmyk": encoded(image.convert("CMYK"), "JPEG"),
        "mpo": encoded(image, "MPO", save_all=True, append_images=[image]),
        "png": encoded(image, "PNG", **extras),
        "png16": encoded(Image.fromarray(np.arange(288, dtype=np.uint16).reshape(16, 18) * 200), "PNG"),
        "palette": encoded(image.quantize(8), "PNG", transparency=b"\0\x80"),
        "gif": encoded(image, "GIF"),
        "animated": encoded(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "webp": encoded(image, "WEBP", **extras),
        "lossless": encoded(image, "WEBP", lossless=True),
        "tiff": encoded(image, "TIFF", **extras),
        "lzw": encoded(image, "TIFF", compression="tiff_lzw"),
        "float": encoded(Image.fromarray((x / 18).astype(np.float32)), "TIFF"),
        "bmp": encoded(image, "BMP"),
        "ppm": encoded(image, "PPM"),
    }


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("name", "data"), sample_files().items(), ids=sample_files())
def test_a_file_cut_off_anywhere_is_refused_or_whole(name: str, data: bytes) -> None:
    whole = read_image(data)
    refused = 0
    for end in [*range(0, len(data), max(1, len(data) // 60)), len(data) - 1]:
        try:
            assert torch.equal(read_image(data[:end]), whole), end  # what is missing was no pixel
        except ImageError:
            refused += 1
    assert refused > 20


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(("name", "data"), sample_files().items(), ids=sample_files())
def test_a_damaged_file_is_refused_or_still_a_picture(name: str, data: bytes) -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(data)
        damaged[random.integers(min(len(data), 300))] = random.integers(256)
        damaged[random.integers(len(data))] = random.integers(256)
        try:
            image = read_image(bytes(damaged), max_pixels=1_000_000)
        except ImageError:
            continue
        assert image.shape[0] == 3
        assert image.min() >= 0
        assert image.max() <= 1


def test_the_state_of_pillow_and_of_warnings_is_left_alone() -> None:
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:])
    files = [*sample_files().values(), png(11_000, 11_000, 8, 2, b""), b"", b"text"]

    def attempt(data: bytes) -> bool:
        try:
            return read_image(data).shape[0] == 3
        except ImageError:
            return False

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(attempt, files * 4))
    assert outcomes == ([True] * (len(files) - 3) + [False] * 3) * 4
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:]) == before


def test_the_pixel_budget_is_checked_before_anything_is_decoded() -> None:
    with pytest.raises(ImageError, match=r"9000 x 9000 = 81,000,000 pixels, more than the limit of 50,000,000; scale"):
        read_image(png(9000, 9000, 8, 2, b""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # beyond 89 million Pillow warns
        with pytest.raises(ImageError, match="121,000,000 pixels, more than the limit of 50,000,000"):
            read_image(png(11_000, 11_000, 8, 2, b""))
        with pytest.raises(ImageError, match="truncated or damaged"):  # allowed, so decoded, and found to be empty
            read_image(png(11_000, 11_000, 8, 0, b""), max_pixels=200_000_000)


def test_the_limit_of_pillow_is_worded_like_our_own() -> None:
    with pytest.raises(
        ImageError, match="has 900,000,000 pixels, more than the limit of 50,000,000; scale it down, or"
    ):
        read_image(png(30_000, 30_000, 8, 2, b""))
    with pytest.raises(ImageError, match=r"more than the limit of 178,956,970; .*PIL\.Image\.MAX_IMAGE_PIXELS"):
        read_image(png(30_000, 30_000, 8, 2, b""), max_pixels=10**10)


def test_the_pixel_budget_of_pil_images_arrays_and_tensors() -> None:
    assert read_image(Image.new("L", (5, 4)), max_pixels=20).shape == (3, 4, 5)
    for source in (Image.new("L", (5, 4)), np.zeros((4, 5)), torch.zeros(3, 4, 5)):
        with pytest.raises(ImageError, match="5 x 4 = 20 pixels, more than the limit of 19"):
            read_image(source, max_pixels=19)


@pytest.mark.parametrize("source", [np.zeros((0, 5, 3)), torch.zeros(3, 0, 5), Image.new("RGB", (5, 0))])
def test_pictures_of_no_size(source: Any) -> None:
    with pytest.raises(ImageError, match="is 5 x 0 pixels"):
        read_image(source)


# --- arrays and tensors ----------------------------------------------------------------------------------------------


def test_arrays_of_every_shape_and_dtype() -> None:
    grey = np.array([[0.0, 0.2], [0.4, 1.0]])
    expected = torch.tensor(grey).float().expand(3, 2, 2)
    for dtype in (np.float32, np.float64, np.float16, np.longdouble, ">f4", ">f8"):
        for array in (grey, grey[..., None], np.stack([grey] * 3, -1), np.stack([grey] * 3 + [np.ones((2, 2))], -1)):
            assert_close(read_image(array.astype(dtype)), expected, rtol=0, atol=2e-4)
    levels = np.array([[0, 51], [102, 255]], np.uint8)
    assert_close(read_image(levels), expected)
    assert_close(read_image(levels.astype(np.uint16) * 257), expected)
    assert_close(read_image(levels > 60), torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(3, 2, 2))
    clear = np.dstack([levels, levels, levels, np.full((2, 2), 102, np.uint8)])
    assert_close(read_image(clear), expected * 0.4 + 0.6)


def test_arrays_turned_and_protected_are_read_and_left_alone() -> None:
    array = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32)
    array.flags.writeable = False
    assert_close(read_image(array[::-1, ::2]), torch.tensor(array[::-1, ::2].copy()).permute(2, 0, 1))
    own = np.zeros((2, 2, 3), np.float32)
    read_image(own).add_(1)
    assert own.max() == 0
    tensor = torch.zeros(3, 2, 2, requires_grad=True)
    image = read_image(tensor)
    image.add_(1)
    assert tensor.max() == 0
    assert not image.requires_grad


def test_tensors_of_every_shape_and_dtype() -> None:
    grey = torch.tensor([[0.0, 0.25], [0.5, 1.0]])
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for tensor in (grey, grey[None], grey.expand(3, 2, 2), torch.cat([grey.expand(3, 2, 2), torch.ones(1, 2, 2)])):
            assert torch.equal(read_image(tensor.to(dtype)), grey.expand(3, 2, 2))
    assert_close(read_image(torch.tensor([[0, 51]], dtype=torch.uint8)), rgb_of((0,) * 3, (51,) * 3))


def test_shapes_that_are_not_a_picture_are_told_the_remedy() -> None:
    for array, complaint in [
        (
            np.zeros((3, 8, 9)),
            r"the array of shape \(3, 8, 9\) is not .*channels come last: array\.transpose\(1, 2, 0\)",
        ),
        (np.zeros((2, 8, 9, 3)), r"shape \(2, 8, 9, 3\)"),
        (np.zeros(5), r"shape \(5,\)"),
        (torch.zeros(8, 9, 3), r"the tensor of shape \(8, 9, 3\) is not .*come first: tensor\.permute\(2, 0, 1\)"),
        (torch.zeros(1, 3, 8, 9), r"shape \(1, 3, 8, 9\) is not \(H, W\), \(1, H, W\), \(3, H, W\) or \(4, H, W\)"),
    ]:
        with pytest.raises(ImageError, match=complaint):
            read_image(array)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ([0.0, float("nan")], r"holds NaN at \(0, 0, 1\); "),
        ([float("-inf"), float("nan")], r"holds Inf at \(0, 0, 0\) and 1 more places"),
        ([0.0, 254.5], r"holds values from 0 to 254\.5 instead of \[0, 1\]; divide by 255"),
        ([0.0, 60000.0], "divide by 65535"),
        ([0.0, 1.01], r"clamp\(0, 1\) it"),
        ([-2.1, 2.6], "mean and std"),
        ([0.0, 1.001], "instead of"),
        ([-0.001, 1.0], "instead of"),
    ],
)
def test_values_that_no_network_should_see(values: list[float], complaint: str) -> None:
    tensor = torch.tensor(values).reshape(1, 1, 2)
    with pytest.raises(ImageError, match=complaint):
        read_image(tensor)
    with pytest.raises(ImageError):
        check_images(tensor)
    with pytest.raises(ImageError):
        read_image(tensor[0].numpy())


def test_rounding_beyond_the_range_is_clamped() -> None:
    values = torch.tensor([[-5e-5, 1 + 5e-5, 0.5]])
    assert torch.equal(read_image(values)[0], torch.tensor([[0, 1, 0.5]]))
    assert torch.equal(check_images(values[None])[0, 0], torch.tensor([[0, 1, 0.5]]))
    assert torch.equal(values, torch.tensor([[-5e-5, 1 + 5e-5, 0.5]]))
    half = torch.tensor([[[1.001]]]).half()  # the next number above 1
    assert half > 1
    assert check_images(half).max() == 1


@pytest.mark.parametrize("array", [np.zeros((2, 2), np.int64), np.zeros((2, 2), np.complex64), np.full((2, 2), "a")])
def test_dtypes_that_hold_no_picture(array: np.ndarray) -> None:
    with pytest.raises(ImageError, match=r"use uint8 \(0 to 255\), uint16 \(0 to 65535\), bool or floats in \[0, 1\]"):
        read_image(array)


# --- check_images ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (2, 3, 4, 5), (2, 1, 4, 5)])
def test_check_images_makes_a_batch(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape).to(dtype)
    batch = check_images(images)
    expected = (images[None] if len(shape) == 3 else images).expand(-1, 3, -1, -1)
    assert batch.dtype == dtype
    assert batch.is_contiguous()
    assert torch.equal(batch, expected)
    if dtype != torch.bfloat16:
        assert torch.equal(check_images(images.numpy()), expected)


def test_check_images_keeps_the_memory_format_and_drops_the_graph() -> None:
    images = torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    batch = check_images(images)
    assert not batch.requires_grad
    assert images.requires_grad
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert check_images(torch.rand(2, 3, 5, 4).transpose(2, 3)).is_contiguous()


def test_check_images_gives_what_autograd_takes() -> None:
    with torch.inference_mode():
        images = torch.rand(1, 3, 4, 4)
    batch = check_images(images).requires_grad_()
    (batch * batch).sum().backward()
    assert_close(batch.grad, 2 * images)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        (torch.zeros(4, 5), r"shape \(4, 5\) are not \(3, H, W\) or \(N, 3, H, W\), or one channel"),
        (torch.zeros(4, 5, 3), r"channels come first: permute\(2, 0, 1\)"),
        (np.zeros((2, 4, 5, 3)), r"channels come first: permute\(0, 3, 1, 2\)"),
        (torch.zeros(2, 4, 5, 5), "are not"),
        (torch.zeros(0, 3, 5, 5), r"shape \(0, 3, 5, 5\) hold no pixels"),
        (torch.zeros(1, 3, 0, 5), "hold no pixels"),
        (torch.zeros(3, 4, 5, dtype=torch.uint8), "hold uint8 instead of floats .*divide by 255"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "hold int64"),
        ("cat.jpg", r"must be a tensor, not str; read_image\(\) makes one"),
        (torch.full((1, 3, 2, 2), float("nan")), r"NaN at \(0, 0, 0, 0\) and 11 more places"),
    ],
)
def test_check_images_says_what_it_takes(images: Any, complaint: str) -> None:
    with pytest.raises(ImageError, match=complaint):
        check_images(images)


# --- sizes -----------------------------------------------------------------------------------------------------------

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def resized_by_pillow(image: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    """Channel by channel in Pillow's float mode, which does not round to 8 bits."""
    channels = [Image.fromarray(channel.numpy()).resize(size[::-1], FILTERS[mode]) for channel in image]
    return torch.stack([torch.tensor(np.array(channel)) for channel in channels]).clamp(0, 1)


def fit_by_pillow(image: torch.Tensor, side: int, crop: float, mode: str) -> torch.Tensor:
    """Resize(round(side / crop)) and CenterCrop(side), as every ImageNet recipe has them."""
    _, height, width = image.shape
    short = round(side / crop)
    size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    scaled = resized_by_pillow(image, size, mode)
    top, left = int(round((size[0] - side) / 2.0)), int(round((size[1] - side) / 2.0))  # noqa: RUF046
    return scaled[:, top : top + side, left : left + side]


@pytest.mark.parametrize("mode", FILTERS)
@pytest.mark.parametrize("size", [(7, 11), (40, 60), (1, 1), (23, 31)])
def test_resize_is_pillows(mode: str, size: tuple[int, int]) -> None:
    image = torch.rand(3, 23, 31, generator=torch.Generator().manual_seed(0))
    assert_close(resize(image, size, mode=mode), resized_by_pillow(image, size, mode), rtol=0, atol=1e-5)
    assert_close(resize(image[None], size, mode=mode)[0], resize(image, size, mode=mode))


def test_resize_by_half_averages_with_a_triangle() -> None:
    image = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]).expand(3, 2, 8)
    # weights of the neighbours at distance 0.5, 1.5 of twice the width: 3/8, 1/8; renormalised where the border cuts
    expected = torch.tensor([0.0, (3 * 0 + 3 * 1 + 1 * 1) / 8, (1 + 3 + 3 + 0) / 8, 1 / 7])
    assert_close(resize(image, (2, 4))[0, 0], expected)


def test_resize_stays_in_range_and_dtype() -> None:
    image = (torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    scaled = resize(image, (40, 40), mode="bicubic")  # overshoots at every edge without the clamp
    assert scaled.min() == 0
    assert scaled.max() == 1
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        small = resize(image.to(dtype), (5, 5))
        assert small.dtype == dtype
        assert_close(small.float(), resize(image, (5, 5)), rtol=0, atol=5e-3)


def test_gradients_pass_through_resize() -> None:
    image = torch.rand(3, 8, 8, requires_grad=True)
    resize(image, (4, 4)).sum().backward()
    assert image.grad is not None
    assert image.grad.sum() == pytest.approx(48, rel=1e-4)  # weights of each of 48 outputs sum to 1


@pytest.mark.parametrize("mode", FILTERS)
@pytest.mark.parametrize("crop", [1.0, 0.875, 224 / 232, 0.5])
@pytest.mark.parametrize("shape", [(30, 41), (41, 30), (33, 33), (10, 13), (100, 9), (1, 1)])
def test_fit_is_the_usual_preprocessing(shape: tuple[int, int], crop: float, mode: str) -> None:
    image = torch.rand(3, *shape, generator=torch.Generator().manual_seed(0))
    ours = fit(image, (16, 16), crop=crop, mode=mode)
    assert ours.shape == (3, 16, 16)
    assert_close(ours, fit_by_pillow(image, 16, crop, mode), rtol=0, atol=1e-5)
    assert_close(fit(image[None], (16, 16), crop=crop, mode=mode)[0], ours)


@pytest.mark.parametrize("size", [(10, 20), (20, 10), (7, 7), (64, 3)])
@pytest.mark.parametrize("shape", [(30, 40), (40, 30), (5, 6)])
def test_fit_to_any_size_keeps_the_proportions_and_the_centre(shape: tuple[int, int], size: tuple[int, int]) -> None:
    y = torch.linspace(-1, 1, shape[0] * 2 + 1)[1::2, None] * shape[0] / 2  # position of each pixel from the centre
    x = torch.linspace(-1, 1, shape[1] * 2 + 1)[None, 1::2] * shape[1] / 2
    image = torch.stack([0.5 + y.expand(shape) / 100, 0.5 + x.expand(shape) / 100, torch.full(shape, 0.5)])
    fitted = fit(image, size)
    assert fitted.shape[1:] == size
    scale = max(size[0] / shape[0], size[1] / shape[1])
    middle = slice(1, -1) if min(size) > 4 else slice(None)
    rows, columns = (fitted[0].mean(1) - 0.5) * 100, (fitted[1].mean(0) - 0.5) * 100
    assert_close(rows.mean(), torch.tensor(0.0), rtol=0, atol=0.6 / scale)
    assert_close(columns.mean(), torch.tensor(0.0), rtol=0, atol=0.6 / scale)
    if size[1] > 8:
        step = columns[middle].diff()[2:-2].mean()
        assert step == pytest.approx(1 / scale, rel=0.15)


@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("shape", [(40, 60), (90, 33), (32, 32), (7, 100)])
def test_unfit_finds_where_a_box_came_from(shape: tuple[int, int], crop: float) -> None:
    """A picture whose pixels say where they are: a box's mean place must be that of the box that it came from."""
    rows, columns = torch.meshgrid(torch.arange(shape[0]) + 0.5, torch.arange(shape[1]) + 0.5, indexing="ij")
    places = torch.stack([rows / shape[0], columns / shape[1], rows * 0]).double()
    box = (10, 7, 21, 19)
    cut = fit(places, (32, 28), crop=crop)[:, box[0] : box[2], box[1] : box[3]]
    top, left, bottom, right = unfit(box, shape, (32, 28), crop=crop)
    found = cut.mean((1, 2)) * torch.tensor([*shape, 1])
    assert_close(found[:2], torch.tensor([(top + bottom) / 2, (left + right) / 2]).double(), rtol=0, atol=0.06)
    scaled = min(shape[0] / round(32 / crop), shape[1] / round(28 / crop))
    assert bottom - top == pytest.approx(11 * scaled, rel=0.03)
    assert right - left == pytest.approx(12 * scaled, rel=0.03)


def test_unfit_of_what_was_only_cropped_or_scaled_by_a_whole_factor_is_whole() -> None:
    assert unfit((0, 0, 10, 10), (20, 30), (10, 10), crop=0.5) == (5, 10, 15, 20)
    assert unfit((1, 2, 3, 4), (20, 40), (10, 20)) == (2, 4, 6, 8)


def test_fit_that_has_nothing_to_do_changes_nothing() -> None:
    image = torch.rand(3, 12, 9)
    assert_close(fit(image, (12, 9)), image, rtol=0, atol=1e-6)


def test_fit_of_a_thread_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(ImageError, match="100000 x 1 pixels is too narrow to cover 224 x 224; crop it first"):
        fit(torch.rand(3, 1, 100_000), (224, 224))


@pytest.mark.parametrize("size", [(0, 5), (5, -1), (5,), (2.5, 4), 224, "ab"])
def test_sizes_that_are_none(size: Any) -> None:
    for scale in (resize, fit):
        with pytest.raises(OptionError, match="two whole numbers above zero"):
            scale(torch.rand(3, 4, 4), size)


def test_options_of_scaling_out_of_range() -> None:
    for crop in (0, -1, 1.1, float("nan")):
        with pytest.raises(OptionError, match="crop is"):
            fit(torch.rand(3, 4, 4), (4, 4), crop=crop)
    with pytest.raises(OptionError, match="no mode 'bicubik' of scaling; use bilinear or bicubic; did you mean"):
        resize(torch.rand(3, 4, 4), (4, 4), mode="bicubik")
    for scale in (resize, fit):
        with pytest.raises(ImageError, match=r"shape \(4, 4\) are not"):
            scale(torch.rand(4, 4), (2, 2))


# --- writing ---------------------------------------------------------------------------------------------------------


def test_to_uint8_rounds_to_the_nearest_level() -> None:
    values = torch.tensor([0, 0.49 / 255, 0.51 / 255, 0.5, 254.49 / 255, 254.51 / 255, 1, -0.3, 1.7])
    levels = to_uint8(values.expand(3, 1, 9))
    assert levels.dtype == np.uint8
    assert levels.shape == (1, 9, 3)
    assert levels[0, :, 1].tolist() == [0, 0, 1, 128, 254, 255, 255, 0, 255]


def test_every_level_survives_the_round_trip() -> None:
    pixels = np.random.default_rng(0).permutation(np.arange(256 * 3) % 256).reshape(16, 16, 3).astype(np.uint8)
    image = read_image(pixels)
    for dtype in (torch.float32, torch.float64):
        assert np.array_equal(to_uint8(image.to(dtype)), pixels)
        assert np.array_equal(to_uint8(image.to(dtype)[None]), pixels[None])
    assert np.array_equal(np.asarray(to_pil(image)), pixels)
    assert torch.equal(read_image(to_pil(image)), image)


def test_to_pil_takes_one_picture() -> None:
    assert to_pil(torch.rand(1, 3, 4, 5)).size == (5, 4)
    assert to_pil(torch.full((1, 2, 2), 0.2)).getpixel((0, 0)) == (51, 51, 51)
    with pytest.raises(ImageError, match="2 pictures cannot become one"):
        to_pil(torch.rand(2, 3, 4, 5))
    with pytest.raises(ImageError, match=r"NaN at \(0, 0, 0, 0\)"):
        to_pil(torch.full((3, 4, 5), float("nan")))
    with pytest.raises(ImageError, match="holds uint8 instead of floats"):
        to_uint8(torch.zeros(3, 4, 5, dtype=torch.uint8))


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".webp", ".PNG"])
def test_written_pictures_are_read_again(suffix: str, tmp_path: Path) -> None:
    y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 48), indexing="ij")
    image = torch.stack([x, y, 1 - x])
    path = tmp_path / f"out{suffix}"
    for source in (image, image.permute(1, 2, 0).numpy(), to_pil(image)):
        write_image(source, path)
        exact = suffix.lower() == ".png"
        assert_close(read_image(path), image, rtol=0, atol=0.51 * LEVEL if exact else 8 * LEVEL)
    assert listing(tmp_path) == [f"out{suffix}"]
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(suffix, "PNG")
    with Image.open(path) as written:
        assert written.format == kind


def test_a_pil_image_keeps_its_alpha_where_the_file_can(tmp_path: Path) -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    write_image(image, tmp_path / "clear.png")
    with Image.open(tmp_path / "clear.png") as written:
        assert written.getpixel((0, 0)) == (255, 0, 0, 0)
    write_image(image, tmp_path / "clear.jpg")
    assert_close(read_image(tmp_path / "clear.jpg"), torch.ones(3, 16, 16))


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    image = torch.rand(3, 4, 4)
    (tmp_path / "folder.png").mkdir()
    for name, complaint in {
        "out.tga": r"out\.tga: pictures are written as \.png, \.jpg, \.jpeg, \.webp; end the name in one",
        "out": "pictures are written as",
        "new/out.png": r"there is no folder .*new; make it first: mkdir -p '.*new'",
        "folder.png": "is a folder; name a file in it",
    }.items():
        with pytest.raises(OutputError, match=complaint):
            write_image(image, tmp_path / name)
    with pytest.raises(OutputError, match=r"cannot write 20000 x 1 pixels in mode RGB .*try \.png"):
        write_image(torch.zeros(3, 1, 20_000), tmp_path / "wide.webp")
    assert listing(tmp_path) == ["folder.png"]


def test_a_picture_that_cannot_be_shown_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "out.png"
    write_image(torch.ones(3, 2, 2), path)
    with pytest.raises(ImageError):
        write_image(torch.full((3, 2, 2), float("nan")), path)
    assert torch.equal(read_image(path), torch.ones(3, 2, 2))
    assert listing(tmp_path) == ["out.png"]


def test_atomic_write_shows_the_file_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "result.npz"
    path.write_text("old")
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path.resolve()
        assert temporary.suffix == ".npz"
        assert temporary.name.startswith(".")
        np.savez(temporary, values=np.arange(3))
        assert path.read_text() == "old"
    assert np.load(path)["values"].tolist() == [0, 1, 2]
    assert listing(tmp_path) == ["result.npz"]


def write_half(path: Path, error: BaseException) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("no"), ConvscopeError("no")])
@pytest.mark.parametrize("present", [False, True])
def test_atomic_write_leaves_nothing_behind(error: BaseException, present: bool, tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    if present:
        path.write_text("old")
    with pytest.raises(type(error)) as caught:
        write_half(path, error)
    assert caught.value is error
    assert listing(tmp_path) == (["result.txt"] if present else [])
    assert not present or path.read_text() == "old"


def test_atomic_write_words_the_faults_of_the_disk_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    with pytest.raises(OutputError, match=r"result\.txt cannot be written \(No space left on device\)"):
        write_half(path, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(FileNotFoundError), atomic_write(path):
        (tmp_path / "input.txt").read_text()
    with pytest.raises(OutputError, match="cannot be written"), atomic_write(path) as temporary:
        temporary.unlink()  # so that there is nothing to rename
    assert listing(tmp_path) == []


def test_atomic_write_where_nothing_may_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    refused = r"result\.txt cannot be written \(Permission denied\); choose another place"
    with pytest.raises(OutputError, match=refused), atomic_write(tmp_path / "result.txt"):
        pytest.fail("must not be entered")
    monkeypatch.undo()
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OutputError, match=refused), atomic_write(tmp_path / "result.txt"):
        pass
    assert listing(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions, links and devices of POSIX")
def test_atomic_write_keeps_umask_links_and_devices(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "real.txt") as temporary:
            temporary.write_text("1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "real.txt").stat().st_mode) == 0o640
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with atomic_write(tmp_path / "link.txt") as temporary:
        temporary.write_text("2")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "2"
    with atomic_write(os.devnull) as temporary:
        assert str(temporary) == os.devnull
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_atomic_write_copes_with_long_names(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 100 + ".txt")  # 204 bytes of at most 255
    with atomic_write(path) as temporary:
        temporary.write_text("1")
    assert path.read_text() == "1"


# --- find_images -----------------------------------------------------------------------------------------------------


def test_find_images_lists_every_kind_in_order(tmp_path: Path) -> None:
    names = [f"b/deep/x{suffix}" for suffix in FORMATS] + ["a.JPG", "c.Png", "b/y.webp"]
    for name in [*names, "notes.txt", ".hidden.png", ".git/x.png", "b/.x.out.png", "png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_images(tmp_path)
    assert found == sorted(tmp_path / name for name in names)
    assert find_images(str(tmp_path)) == found


def test_find_images_where_there_are_none(tmp_path: Path) -> None:
    assert find_images(tmp_path) == []
    (tmp_path / "a.png").touch()
    for wrong in (tmp_path / "none", tmp_path / "a.png"):
        with pytest.raises(ImageError, match="there is no such folder"):
            find_images(wrong)


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_find_images_follows_links_once(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "x.png").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "data")
    assert find_images(tmp_path / "data") == [tmp_path / "data" / "linked" / "x.png"]


def test_every_format_named_is_read(tmp_path: Path) -> None:
    for suffix in FORMATS:
        picture = Image.new("L" if suffix == ".pgm" else "RGB", (8, 8), "white")
        kind = {".jfif": "JPEG", ".pgm": "PPM"}.get(suffix)
        picture.save(tmp_path / f"x{suffix}", kind)
    for path in find_images(tmp_path):
        assert_close(read_image(path), torch.ones(3, 8, 8), rtol=0, atol=LEVEL)
    assert len(find_images(tmp_path)) == len(FORMATS)


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["{}", "ü → 日本 \n" * 3, "a" * 100_000])
def test_a_png_carries_a_recipe(tmp_path: Path, recipe: str) -> None:
    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    write_image(image, tmp_path / "x.png", recipe=recipe)
    assert read_recipe(tmp_path / "x.png") == recipe
    torch.testing.assert_close(read_image(tmp_path / "x.png"), image, rtol=0, atol=0.5 / 255 + 1e-6)


def test_pictures_without_a_recipe_say_so(tmp_path: Path) -> None:
    for name in ("x.png", "x.jpg"):
        write_image(torch.zeros(3, 4, 5), tmp_path / name, recipe=None if name == "x.png" else "{}")
        assert read_recipe(tmp_path / name) is None
    with pytest.raises(ImageError, match="no such file"):
        read_recipe(tmp_path / "y.png")
