"""Pictures in and out: any common file, array or tensor becomes RGB in [0, 1], and back again.

    image = read_image("cat.jpg")                       # (3, H, W) float32, upright, sRGB, alpha laid on white
    images = check_images(image)                        # (1, 3, H, W), what every technique works on
    small = fit(image, (224, 224), crop=0.875)          # the usual pre-processing of a classifier
    write_image(small, "cat224.png")                    # written whole or not at all

Whatever is wrong with a picture is one :class:`ImageError` that names the picture and the cause; whatever is wrong
with the place to write to is one :class:`OutputError`.
"""

from __future__ import annotations

import errno
import io
import math
import os
import re
import secrets
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageCms, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torch.nn import functional

from convscope.errors import ImageError, OptionError, OutputError, nearest

Array: TypeAlias = npt.NDArray[Any]
Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | Array | Tensor

FORMATS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")
"""Suffixes, in lower case, of the files that :func:`find_images` lists."""

RECIPE = "convscope"
"""Name of the text in a PNG that says how the picture was made."""

MODES = ("bilinear", "bicubic")
TOLERANCE = 1e-4  # how far outside [0, 1] a float may lie; filters and decoders overshoot by rounding

# Only these are tried: Pillow knows some forty more, of which one starts a PostScript interpreter.
_KINDS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
_KINDS_TEXT = "JPEG, PNG, WebP, GIF, TIFF, BMP or PPM"
_SIGNATURES = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG",
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM.{4}\0{4}",
    "PPM": rb"P[1-6]\s",
}
_WRITERS: dict[str, dict[str, Any]] = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "quality": 95},
}
_SCALES = {torch.bool: 1, torch.uint8: 255, torch.uint16: 65535}
_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")  # Pillow's modes of one channel with more than 8 bits
_FLIPS = {2: (-1,), 3: (-2, -1), 4: (-2,), 6: (-1,), 7: (-2, -1), 8: (-2,)}  # EXIF; 5 to 8 are transposed first
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # colour space of an ICC profile, as Pillow's mode
_WARNINGS = threading.Lock()


# --- reading ---------------------------------------------------------------------------------------------------------


def read_image(source: Source, *, max_pixels: int = 50_000_000) -> Tensor:
    """A picture as (3, H, W) float32 RGB in [0, 1], upright, in sRGB, alpha laid on white.

    ``source`` is one of

    - a path, the bytes of a file, or a file object open for reading in binary: JPEG, PNG, WebP, GIF, TIFF, BMP, PPM,
      of which the first frame or page is taken;
    - a PIL image, at the frame where it stands;
    - a numpy array, channels last: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4);
    - a tensor, channels first: (H, W), (1, H, W), (3, H, W) or (4, H, W).

    Arrays and tensors hold bool, uint8 (0 to 255), uint16 (0 to 65535) or floats in [0, 1]; which axis holds the
    channels is never guessed. The result lies on the CPU, shares no memory with them and carries no graph.

    EXIF rotation is applied, an ICC profile converted to sRGB (a broken one, or one of other channels, is ignored).
    Grey pictures keep 16 bits or float; Pillow reads colour of 16 bits with 8. Mode "I" counts as 16 bits.

    ``max_pixels`` bounds width x height and is checked against the header, before anything is decoded.

    Raises :class:`ImageError`, naming the picture and the cause.
    """
    if isinstance(source, Tensor):
        return _from_tensor(source, "the tensor", max_pixels)
    if isinstance(source, np.ndarray):
        return _from_array(source, "the array", max_pixels)
    if isinstance(source, Image.Image):
        return _from_pil(source, str(getattr(source, "filename", "")) or "the PIL image", max_pixels)
    with _binary(source) as (file, name):
        return _from_pil(_open(file, name, max_pixels), name, max_pixels)


def find_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All files under ``folder``, at any depth, with a suffix of :data:`FORMATS` in either case, sorted by path.

    Linked folders are followed, each once; hidden files and folders are passed over. Nothing found is an empty list.

    Raises :class:`ImageError` when ``folder`` is no folder or cannot be listed.
    """
    if not os.path.isdir(folder):
        raise ImageError(f"{os.fspath(folder)}: there is no such folder; name one that holds pictures")
    found: list[Path] = []
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True, onerror=_cannot_list):
        if (real := os.path.realpath(parent)) in seen:  # a link may lead back to a folder above it
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(parent, name) for name in files if _is_picture_name(name)]
    return sorted(found)


def pictures_in(paths: Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Files as they are, and the pictures in folders; :class:`ImageError` for a folder without any."""
    found: list[Path] = []
    for path in paths:
        inside = find_images(path) if os.path.isdir(path) else [Path(path)]
        if not inside:
            raise ImageError(f"{os.fspath(path)} holds no pictures; give photographs or a folder with some")
        found += inside
    return found


def _is_picture_name(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(FORMATS)


def _cannot_list(error: OSError) -> None:
    raise ImageError(f"{error.filename}: the folder cannot be listed ({error.strerror}); check its permissions")


@contextmanager
def _binary(source: Any) -> Iterator[tuple[IO[bytes], str]]:
    """``source`` as a file that can be rewound, and its name for messages; only what was opened here is closed."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source), f"the picture of {memoryview(source).nbytes:,} bytes"
    elif isinstance(source, (str, os.PathLike)):
        with _open_path(source) as file:
            yield _rewindable(file, str(source)), str(source)
    elif callable(getattr(source, "read", None)):
        name = str(getattr(source, "name", "the file object"))
        yield _rewindable(source, name), name
    else:
        raise ImageError(
            f"cannot read a picture from {type(source).__name__}; give a path, bytes, a file object, "
            "a PIL image, a numpy array or a tensor"
        )


def _open_path(source: str | os.PathLike[str]) -> IO[bytes]:
    try:
        return open(source, "rb")
    except FileNotFoundError as error:
        raise ImageError(f"{source}: there is no such file{_neighbours(source)}") from error
    except (OSError, ValueError) as error:
        if os.path.isdir(source):
            raise ImageError(f"{source} is a folder; name one picture in it") from error
        raise ImageError(f"{source} cannot be opened: {_cause(error)}") from error


def _neighbours(source: str | os.PathLike[str]) -> str:
    path = Path(os.fsdecode(source))
    if re.match(r"\w+:/", str(path)):
        return "; addresses are not fetched, download it first"
    try:
        return nearest(path.name, os.listdir(path.parent))
    except OSError:
        return f", and no folder {path.parent}"


def _rewindable(file: IO[bytes], name: str) -> IO[bytes]:
    if isinstance(file, io.TextIOBase):
        raise ImageError(f"{name} is open as text; open it with mode 'rb'")
    try:
        seekable = getattr(file, "seekable", None)
        return file if seekable and seekable() else io.BytesIO(file.read())  # pipes, and answers from the web
    except (OSError, ValueError, TypeError) as error:
        raise ImageError(f"{name} cannot be read: {_cause(error)}") from error


def _open(file: IO[bytes], name: str, max_pixels: int) -> Image.Image:
    """The picture, header read and nothing decoded."""
    try:
        with _quiet():
            return Image.open(file, formats=_KINDS)
    except Image.DecompressionBombError as error:
        raise _refused_by_pillow(error, name, max_pixels) from error
    except UnidentifiedImageError as error:
        raise _unidentified(file, name) from error
    except Exception as error:  # decoders raise anything on foreign bytes: struct, zlib, value, overflow errors, ...
        raise _damaged(name, error) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hush Pillow's warnings on headers: what matters in them is checked here and raised.

    Python keeps one list of filters for all threads, hence the lock. It is never held while a picture is decoded.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _unidentified(file: IO[bytes], name: str) -> ImageError:
    file.seek(0)
    head = file.read(16)
    if not head:
        return ImageError(f"{name} is empty: 0 bytes; fetch or save it again")
    for kind, signature in _SIGNATURES.items():
        if re.match(signature, head, re.DOTALL):
            return ImageError(
                f"{name} starts like a {kind} but cannot be read: truncated, damaged or of a rare variant; "
                "fetch it again, or save it as an ordinary PNG"
            )
    return ImageError(f"{name} is not a picture of a kind that is read ({_KINDS_TEXT}); convert it to one of them")


def _refused_by_pillow(error: Exception, name: str, max_pixels: int) -> ImageError:
    """Pillow has a limit of its own, which is the user's to change."""
    told = re.search(r"\d+", str(error))
    pixels = f"{int(told[0]):,}" if told else "too many"
    limit = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
    remedy = "scale it down, or raise both max_pixels and PIL.Image.MAX_IMAGE_PIXELS if you trust it"
    return ImageError(f"{name} has {pixels} pixels, more than the limit of {limit:,}; {remedy}")


def _damaged(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name} is truncated or damaged ({_cause(error)}); fetch or save it again")


def _cause(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _check_size(height: int, width: int, name: str, max_pixels: int) -> None:
    pixels = height * width
    if pixels <= 0:
        raise ImageError(f"{name} is {width} x {height} pixels, which leaves nothing to look at")
    if pixels > max_pixels:
        raise ImageError(
            f"{name} is {width} x {height} = {pixels:,} pixels, more than the limit of {max_pixels:,}; "
            f"scale it down, or pass max_pixels={pixels} if you trust it"
        )


# --- from Pillow to numbers ------------------------------------------------------------------------------------------


def _from_pil(image: Image.Image, name: str, max_pixels: int) -> Tensor:
    _check_size(image.height, image.width, name, max_pixels)
    try:
        image.load()
        pixels = _deep_pixels(image, name) if image.mode in _DEEP else _pixels(image)
    except ImageError:
        raise
    except Exception as error:  # as in _open()
        raise _damaged(name, error) from error
    tensor = _upright(_native(pixels).permute(2, 0, 1), _orientation(image))
    return _to_rgb(tensor, name)


def _orientation(image: Image.Image) -> int:
    """1 to 8; 1, which is upright, when the picture does not say or its EXIF block is broken. Needs loaded pixels."""
    try:
        with _quiet():
            value = image.getexif().get(0x0112, 1)
    except Exception:  # the pixels are fine, and a broken note beside them must not keep anyone from seeing them
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(pixels: Tensor, orientation: int) -> Tensor:
    """pixels: (C, H, W) -> (C, H, W) or (C, W, H)."""
    turned = pixels.mT if orientation >= 5 else pixels
    return turned.flip(_FLIPS[orientation]) if orientation in _FLIPS else turned


def _pixels(image: Image.Image) -> Array:
    """(H, W, 1 to 4) uint8 of a picture with 8 bits a channel, in sRGB: grey, grey and alpha, RGB, or RGBA."""
    colour, alpha = _split_alpha(image)
    colour = _to_srgb(colour, image.info.get("icc_profile"))
    colour = colour if colour.mode in ("L", "RGB") else colour.convert("RGB")
    pixels = np.atleast_3d(np.asarray(colour))
    return pixels if alpha is None else np.concatenate([pixels, np.atleast_3d(np.asarray(alpha))], 2)


def _split_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colour as L, RGB or CMYK, and alpha as L if there is any."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        both = image.convert("LA" if image.mode == "La" else "RGBA")
        return both.convert("L" if grey else "RGB"), both.getchannel("A")
    if image.mode == "CMYK":
        return image, None
    return image.convert("L" if grey else "RGB"), None


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """``image`` (L, RGB or CMYK) in sRGB, or as it was if ``profile`` is absent, broken, of other channels, or sRGB."""
    if not profile:
        return image
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _SPACES[embedded.profile.xcolor_space.strip()]
        if mode != image.mode and (image.mode, mode) != ("L", "RGB"):
            return image
        transform = ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), mode, "RGB")
        return image if _is_identity(transform, mode) else transform.apply(image.convert(mode))
    except (ImageCms.PyCMSError, OSError, KeyError, ValueError, TypeError):
        return image


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether the profile is sRGB under whatever name: its rounding would shift most photographs by one level."""
    if mode == "CMYK":
        return False
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    probe = Image.fromarray(cube if mode == "RGB" else levels[None])
    before, after = (np.asarray(i.convert("RGB")).astype(int) for i in (probe, transform.apply(probe)))
    return bool(np.abs(after - before).max() <= 1)


def _deep_pixels(image: Image.Image, name: str) -> Array:
    """(H, W, 1 to 4) float32 of a grey picture with 16 or 32 bits, in sRGB, checked to lie in [0, 1]."""
    raw = np.asarray(image)
    grey = _native(raw if image.mode == "F" else _scaled(raw, image, name))
    grey = _unit_range(grey, name).to(torch.float32)
    pixels = _through_profile(grey.numpy()[..., None], image.info.get("icc_profile"))
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return pixels
    return np.concatenate([pixels, (raw != transparent).astype(np.float32)[..., None]], 2)


def _scaled(raw: Array, image: Image.Image, name: str) -> Array:
    """raw: (H, W) whole numbers of 16 bits -> (H, W) float64 in [0, 1]."""
    low, high = int(raw.min()), int(raw.max())
    if low < 0 or high > 65535:
        raise ImageError(f"{name} holds whole numbers from {low} to {high}; scale them to 0..65535 (16 bits) first")
    tags = getattr(image, "tag_v2", {})  # TIFF: what Pillow leaves to the caller
    limit = 4095 if tags.get(258) == (12,) else 65535  # BitsPerSample
    white_is_zero = image.mode != "I" and tags.get(262) == 0  # PhotometricInterpretation
    scaled: Array = raw.astype(np.float64) / limit
    return 1 - scaled if white_is_zero else scaled


def _through_profile(grey: Array, profile: bytes | None) -> Array:
    """grey: (H, W, 1) in [0, 1] -> itself or (H, W, 3). A grey axis needs only a curve, so more than 8 bits survive."""
    levels = np.arange(256, dtype=np.uint8)
    ramp = Image.fromarray(levels[None])
    converted = _to_srgb(ramp, profile)
    if converted is ramp:
        return grey
    curves = np.asarray(converted)[0].T / 255
    return np.concatenate([np.interp(grey, levels / 255, curve).astype(np.float32) for curve in curves], 2)


# --- from arrays and tensors -----------------------------------------------------------------------------------------


def _from_array(array: Array, name: str, max_pixels: int) -> Tensor:
    shaped = array[..., None] if array.ndim == 2 else array
    if shaped.ndim != 3 or shaped.shape[2] not in (1, 3, 4):
        turn = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; channels come last: array.transpose(1, 2, 0)" if turn else ""
        raise ImageError(f"{name} of shape {_shape(array)} is not (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}")
    _check_size(shaped.shape[0], shaped.shape[1], name, max_pixels)
    return _to_rgb(_native(shaped).permute(2, 0, 1), name)


def _from_tensor(tensor: Tensor, name: str, max_pixels: int) -> Tensor:
    shaped = tensor.detach()[None] if tensor.ndim == 2 else tensor.detach()
    if shaped.ndim != 3 or shaped.shape[0] not in (1, 3, 4):
        turn = tensor.ndim == 3 and tensor.shape[2] in (1, 3, 4)
        hint = "; channels come first: tensor.permute(2, 0, 1)" if turn else ""
        raise ImageError(f"{name} of shape {_shape(tensor)} is not (H, W), (1, H, W), (3, H, W) or (4, H, W){hint}")
    _check_size(shaped.shape[1], shaped.shape[2], name, max_pixels)
    return _to_rgb(shaped.cpu(), name)


def _shape(values: Array | Tensor) -> str:
    return "(" + ", ".join(map(str, values.shape)) + ("," if values.ndim == 1 else "") + ")"


def _native(array: Array) -> Tensor:
    """A tensor of its own, of whatever byte order, strides and write protection the array has."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size not in (2, 4, 8):
        array = array.astype(np.float64)
    if kind not in "bfiu":
        raise ImageError(f"an array of dtype {array.dtype} holds no picture; {_DTYPES_TEXT}")
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C"))


_DTYPES_TEXT = "use uint8 (0 to 255), uint16 (0 to 65535), bool or floats in [0, 1]"


def _to_rgb(pixels: Tensor, name: str) -> Tensor:
    """pixels: (1 to 4, H, W), alpha last in those with 2 or 4 channels -> (3, H, W) float32."""
    values = _to_unit(pixels, name)
    if values.shape[0] in (2, 4):
        alpha = values[-1:]
        values = values[:-1] * alpha + (1 - alpha)
    return values.expand(3, -1, -1).contiguous()


def _to_unit(pixels: Tensor, name: str) -> Tensor:
    """Contiguous float32 in [0, 1], in memory of its own."""
    if pixels.dtype in _SCALES:
        scale = _SCALES[pixels.dtype]
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(scale)
    if pixels.dtype not in _FLOATS:
        raise ImageError(f"{name} holds {_dtype(pixels)}; {_DTYPES_TEXT}")
    checked = _unit_range(pixels, name).to(torch.float32, memory_format=torch.contiguous_format)
    return checked.clone() if checked.data_ptr() == pixels.data_ptr() else checked


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


# --- values in [0, 1] ------------------------------------------------------------------------------------------------


def _unit_range(values: Tensor, name: str) -> Tensor:
    """``values``, clamped if they leave [0, 1] by rounding; an :class:`ImageError` if by more, or if not finite."""
    low, high = (float(bound) for bound in torch.aminmax(values))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError(f"{name} {_where_not_finite(values)}; a network would only pass it on")
    slack = max(TOLERANCE, torch.finfo(values.dtype).eps)  # half precision cannot come closer to 1 than its eps
    if low < -slack or high > 1 + slack:
        raise ImageError(f"{name} holds values from {low:.4g} to {high:.4g} instead of [0, 1]; {_remedy(low, high)}")
    return values.clamp(0, 1) if low < 0 or high > 1 else values


def _where_not_finite(values: Tensor) -> str:
    places = torch.nonzero(~torch.isfinite(values))
    first = tuple(places[0].tolist())
    others = f" and {len(places) - 1:,} more places" if len(places) > 1 else ""
    return f"holds {'NaN' if values[first].isnan() else 'Inf'} at {first}{others}"


def _remedy(low: float, high: float) -> str:
    if low < 0:
        return "if mean and std were applied, undo that, since the network does it itself; else clamp(0, 1)"
    if high <= 1.5:
        return "clamp(0, 1) it"
    return f"divide by {255 if high <= 255 + TOLERANCE else 65535 if high <= 65535 + TOLERANCE else 'the largest'}"


def check_images(images: Tensor | Array) -> Tensor:
    """``images`` as (N, 3, H, W) in [0, 1], detached, on their device, in their dtype and memory format.

    ``images``: (3, H, W) or (N, 3, H, W), or the same with one channel, which is repeated; float32, float64, float16
    or bfloat16. Values outside [0, 1] by no more than rounding are clamped. Memory is shared where nothing changed.

    Raises :class:`ImageError` for other shapes and dtypes, no pixels, NaN, Inf, and values outside [0, 1].
    """
    tensor = _native(images) if isinstance(images, np.ndarray) else images
    if not isinstance(tensor, Tensor):
        raise ImageError(f"pictures must be a tensor, not {type(images).__name__}; read_image() makes one")
    batch = _as_batch(tensor.detach())
    if batch.dtype not in _FLOATS:
        remedy = "divide by 255, or read each with read_image()" if batch.dtype == torch.uint8 else "convert to float32"
        raise ImageError(f"the pictures hold {_dtype(batch)} instead of floats in [0, 1]; {remedy}")
    checked = _unit_range(batch, "the batch of pictures").expand(-1, 3, -1, -1)
    return _dense(checked.clone() if checked.is_inference() else checked)  # autograd refuses inference tensors


def _as_batch(images: Tensor) -> Tensor:
    batch = images[None] if images.ndim == 3 else images
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        turn = images.ndim in (3, 4) and images.shape[-1] in (1, 3)
        order = "2, 0, 1" if images.ndim == 3 else "0, 3, 1, 2"
        hint = f"; channels come first: permute({order})" if turn else ""
        raise ImageError(f"pictures of shape {_shape(images)} are not (3, H, W) or (N, 3, H, W), or one channel{hint}")
    if batch.numel() == 0:
        raise ImageError(f"pictures of shape {_shape(images)} hold no pixels")
    return batch


def _dense(batch: Tensor) -> Tensor:
    if batch.is_contiguous() or batch.is_contiguous(memory_format=torch.channels_last):
        return batch
    return batch.contiguous()


# --- sizes -----------------------------------------------------------------------------------------------------------


def resize(images: Tensor, size: tuple[int, int], *, mode: str = "bilinear") -> Tensor:
    """``images`` scaled to ``size`` (height, width) with antialiasing, clamped to [0, 1]; gradients pass through.

    images: (3, H, W) or (N, 3, H, W); half precision is computed in float32 and given back in half. ``mode`` is
    "bilinear" or "bicubic", the filters of Pillow.

    Raises :class:`OptionError` for another mode or a size below 1, :class:`ImageError` for other shapes.
    """
    _check_options(size, mode)
    if images.ndim not in (3, 4) or images.numel() == 0:
        raise ImageError(f"pictures of shape {_shape(images)} are not (3, H, W) or (N, 3, H, W)")
    batch = images if images.ndim == 4 else images[None]
    wide = batch if batch.dtype in (torch.float32, torch.float64) else batch.float()
    scaled = functional.interpolate(wide, tuple(size), mode=mode, antialias=True, align_corners=False)
    scaled = scaled.clamp(0, 1).to(images.dtype)
    return scaled if images.ndim == 4 else scaled[0]


def fit(image: Tensor, size: tuple[int, int], *, crop: float = 1.0, mode: str = "bilinear") -> Tensor:
    """The centre of ``image`` at ``size`` (height, width): the pre-processing that classifiers are evaluated with.

    The picture is scaled, up or down, until it just covers ``round(size / crop)``, then ``size`` is cut from the
    centre: ``Resize(256)`` and ``CenterCrop(224)`` are ``fit(image, (224, 224), crop=224 / 256)``. ``crop`` is the
    share of the side that is kept, in (0, 1].

    image: (3, H, W) or (N, 3, H, W) -> the same with ``size``.

    Raises :class:`OptionError` for options out of range, :class:`ImageError` for other shapes, and for a picture so
    narrow that covering ``size`` would take 50 million pixels.
    """
    _check_options(size, mode)
    if not 0 < crop <= 1:
        raise OptionError(f"crop is {crop}; it must lie above 0 and at most at 1, the share of the side that is kept")
    if image.ndim not in (3, 4) or image.numel() == 0:
        raise ImageError(f"pictures of shape {_shape(image)} are not (3, H, W) or (N, 3, H, W)")
    scaled, (top, left) = _fitted((image.shape[-2], image.shape[-1]), size, crop)
    if scaled[0] * scaled[1] > 50_000_000:
        whole = f"{image.shape[-1]} x {image.shape[-2]}"
        raise ImageError(f"a picture of {whole} pixels is too narrow to cover {size[1]} x {size[0]}; crop it first")
    return resize(image, scaled, mode=mode)[..., top : top + size[0], left : left + size[1]]


def unfit(
    box: tuple[float, float, float, float], shape: tuple[int, int], size: tuple[int, int], *, crop: float = 1.0
) -> tuple[float, float, float, float]:
    """Where a box of ``fit(image, size, crop=crop)`` lies in an ``image`` of ``shape`` (height, width).

    Boxes are (top, left, bottom, right) in pixels, counted from the edge of the first one, half open and not rounded:
    what ``fit`` scaled by a whole factor comes back whole.
    """
    scaled, corner = _fitted(shape, size, crop)
    top, left, bottom, right = (
        (place + corner[i % 2]) * shape[i % 2] / scaled[i % 2] for i, place in enumerate(box)
    )  # fmt: skip
    return top, left, bottom, right


def _fitted(shape: tuple[int, int], size: tuple[int, int], crop: float) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size to which a picture of ``shape`` is scaled, and the corner (top, left) of what is cut from that."""
    scaled = _covering(shape, (round(size[0] / crop), round(size[1] / crop)))
    return scaled, (round((scaled[0] - size[0]) / 2), round((scaled[1] - size[1]) / 2))


def _covering(shape: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """The smallest size in the proportions of ``shape`` that covers ``box``, in whole numbers, so no side is short."""
    height, width = shape
    if box[0] * width >= box[1] * height:
        return box[0], width * box[0] // height
    return height * box[1] // width, box[1]


def _check_options(size: tuple[int, int], mode: str) -> None:
    sides = tuple(size) if isinstance(size, (tuple, list)) else ()
    if len(sides) != 2 or not all(isinstance(side, (int, np.integer)) and side >= 1 for side in sides):
        raise OptionError(f"size must be two whole numbers above zero, (height, width), not {size!r}")
    if mode not in MODES:
        raise OptionError(f"there is no mode {mode!r} of scaling; use {' or '.join(MODES)}{nearest(mode, MODES)}")


# --- writing ---------------------------------------------------------------------------------------------------------


def to_uint8(images: Tensor) -> npt.NDArray[np.uint8]:
    """images: (3, H, W) or (N, 3, H, W) in [0, 1] -> (H, W, 3) or (N, H, W, 3), 0 to 255, rounded to nearest.

    Values outside [0, 1] are clamped; one channel is repeated. Raises :class:`ImageError` for NaN and other shapes.
    """
    if images.dtype not in _FLOATS:
        raise ImageError(f"the picture holds {_dtype(images)} instead of floats in [0, 1]; divide by its largest value")
    batch = _as_batch(images.detach()).to("cpu", torch.float32)
    if batch.isnan().any():
        raise ImageError(f"the picture {_where_not_finite(batch)}, which has no colour")
    levels = batch.clamp(0, 1).mul(255).add_(0.5).to(torch.uint8).expand(-1, 3, -1, -1)
    array: npt.NDArray[np.uint8] = np.ascontiguousarray(levels.permute(0, 2, 3, 1).numpy())
    return array if images.ndim == 4 else array[0]


def to_pil(image: Tensor) -> Image.Image:
    """image: (3, H, W), (1, H, W), or a batch of one, in [0, 1] -> an RGB image. Errors as in :func:`to_uint8`."""
    array = to_uint8(image)
    if array.ndim == 4 and len(array) != 1:
        raise ImageError(f"{len(array)} pictures cannot become one image; take one of them, images[i]")
    return Image.fromarray(array[0] if array.ndim == 4 else array)


def write_image(
    image: Tensor | Array | Image.Image, path: str | os.PathLike[str], *, recipe: str | None = None
) -> None:  # fmt: skip
    """Write one picture as PNG, JPEG (quality 95, full colour resolution) or WebP (quality 95), by the suffix.

    image: a tensor (3, H, W) in [0, 1], an array as :func:`read_image` takes it, or a PIL image, which keeps its
    mode where the file can. The file appears whole or not at all. ``recipe`` is text that a PNG carries along, as
    :func:`read_recipe` reads it.

    Raises :class:`OutputError` for an unknown suffix, a missing folder, a full disk; :class:`ImageError` as
    :func:`read_image` and :func:`to_uint8` do.
    """
    options = _WRITERS.get(Path(path).suffix.lower())
    if options is None:
        raise OutputError(f"{os.fspath(path)}: pictures are written as {', '.join(_WRITERS)}; end the name in one")
    if recipe is not None and options["format"] == "PNG":
        options = {**options, "pnginfo": png_text(recipe)}
    picture = _for_writing(image, str(options["format"]))
    with atomic_write(path) as temporary:
        try:
            picture.save(temporary, **options)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # the disk's fault, which atomic_write() words
            size = f"{picture.width} x {picture.height} pixels in mode {picture.mode}"
            raise OutputError(f"{os.fspath(path)}: cannot write {size} ({_cause(error)}); try .png") from error


def png_text(recipe: str) -> PngInfo:
    """What Pillow's ``save(pnginfo=...)`` takes, and matplotlib's ``pil_kwargs``, to put a recipe into a PNG."""
    info = PngInfo()
    info.add_itxt(RECIPE, recipe, zip=len(recipe) > 1000)
    return info


def read_recipe(path: str | os.PathLike[str]) -> str | None:
    """The recipe that a picture carries, or None.

    Raises :class:`ImageError` when there is no such file, or no picture in it.
    """
    with _binary(path) as (file, name):
        found = _open(file, name, 2**62).info.get(RECIPE)
        return str(found) if found is not None else None


def _for_writing(image: Tensor | Array | Image.Image, kind: str) -> Image.Image:
    if isinstance(image, Tensor):
        return to_pil(image)
    if isinstance(image, Image.Image) and (kind != "JPEG" or image.mode in ("L", "RGB", "CMYK")):
        return image
    return to_pil(read_image(image, max_pixels=2**62))


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside ``path``, with its suffix, that takes its place when the block ends without exception.

        with atomic_write("result.npz") as temporary:
            np.savez(temporary, values=values)

    On any exception, an interrupt included, the temporary file is removed and what stood at ``path`` stays. Links are
    followed; devices and pipes, such as /dev/stdout, are written to directly.

    Raises :class:`OutputError` when the folder is missing, or the file cannot be made, filled or renamed.
    """
    target = Path(os.path.realpath(path))
    if os.path.exists(target) and not os.path.isfile(target) and not os.path.isdir(target):
        yield target
        return
    _check_target(target)
    temporary = target.with_name(f".{target.stem[:32]}.{secrets.token_hex(4)}{target.suffix}")
    try:
        _create(temporary)
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        if error.errno in _DISK or str(temporary) in (str(error.filename), str(error.filename2)):
            raise OutputError(f"{target} cannot be written ({_cause(error)}); choose another place") from error
        raise
    finally:
        with suppress(OSError):  # gone when renamed; and what cannot be removed must not hide why
            temporary.unlink()


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _check_target(target: Path) -> None:
    if os.path.isdir(target):
        raise OutputError(f"{target} is a folder; name a file in it")
    if not os.path.isdir(target.parent):
        raise OutputError(f"{target}: there is no folder {target.parent}; make it first: mkdir -p '{target.parent}'")


def _create(path: Path) -> None:
    """An empty file with the permissions that any new file gets, which those of tempfile lack."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def blurred(images: Tensor, sigma: float) -> Tensor:
    """(N, C, H, W) behind a Gaussian blur of standard deviation ``sigma`` pixels; borders are repeated."""
    if sigma <= 0:
        return images
    reach = max(1, round(3 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    weights = torch.exp(-((places / sigma) ** 2) / 2)
    weights = weights / weights.sum()
    planes = images.flatten(0, 1)[:, None]
    planes = functional.conv2d(
        functional.pad(planes, (0, 0, reach, reach), mode="replicate"), weights.view(1, 1, -1, 1)
    )
    planes = functional.conv2d(
        functional.pad(planes, (reach, reach, 0, 0), mode="replicate"), weights.view(1, 1, 1, -1)
    )
    return planes.view_as(images)
