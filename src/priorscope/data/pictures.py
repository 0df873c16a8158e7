"""Pictures: the user's own files, or real photographs that packages bring, as bytes of one size."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import DataError
from .collection import Collection, distinct_names

SIZE = 224
BORDER = 0.875
"""What a network sees of a picture's shorter side: the usual centre crop, 224 of 256."""
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

PHOTOGRAPHS = {
    "skimage": {
        "astronaut": "astronaut.png",
        "brick": "brick.png",
        "cameraman": "camera.png",
        "cat": "chelsea.png",
        "coffee": "coffee.png",
        "coins": "coins.png",
        "galaxies": "hubble_deep_field.jpg",
        "grass": "grass.png",
        "gravel": "gravel.png",
        "moon": "moon.png",
        "motorcycle": "motorcycle_left.png",
        "retina": "retina.jpg",
        "rocket": "rocket.jpg",
        "tissue": "ihc.png",
    },
    "sklearn": {"flower": "flower.jpg", "temple": "china.jpg"},
}
"""The files of real photographs in the wheels of scikit-image and scikit-learn; nothing is downloaded."""


def read_pictures(paths: Sequence[str | Path], size: int = SIZE) -> Collection:
    """The user's pictures: files, or folders of files.

    Each is scaled so that its shorter side is size/0.875 and cut to its centre, (3, size, size); grey becomes RGB, and
    what is transparent becomes white. Where the files lie in several folders, the folders are the groups.

    Raises:
        DataError: a path that does not exist, a folder without pictures, a file that is no picture, or fewer than two.
    """
    files: list[Path] = []
    for given in map(Path, paths):
        if given.is_dir():
            found = sorted(file for file in given.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
            if not found:
                raise DataError(str(given), "holds no pictures", f"Give a folder with {', '.join(ENDINGS)} files")
            files += found
        elif given.is_file():
            files.append(given)
        else:
            raise DataError(str(given), "does not exist", "Give pictures, or folders of pictures")
    wide = round(size / BORDER)
    pixels = [_bytes(ImageOps.fit(_open(file), (wide, wide)).crop(_centre(wide, size))) for file in files]
    folders = distinct_names([file.parent for file in files])
    return Collection(
        "pictures" if len(paths) > 1 else Path(paths[0]).name if paths else "pictures",
        "pictures",
        torch.stack(pixels) if pixels else torch.empty(0, 3, size, size, dtype=torch.uint8),
        tuple(file.name for file in files),
        tuple(folders) if len({file.parent for file in files}) > 1 else None,
        (f"each picture is scaled and cut to its central {size} × {size} pixels",),
    )


def photographs(size: int = SIZE) -> Collection:
    """Sixteen photographs from the wheels of scikit-image and scikit-learn, in four crops each: the quarters.

    The crops of a photograph share no pixel; the group is the photograph.

    Raises:
        DataError: scikit-image or scikit-learn is not installed.
    """
    pixels, names, groups = [], [], []
    for group, file in sorted((group, file) for folder in _folders() for group, file in folder.items()):
        picture = _open(file)
        width, height = picture.size
        for name, left, top in (
            ("top left", 0, 0),
            ("top right", width // 2, 0),
            ("bottom left", 0, height // 2),
            ("bottom right", width // 2, height // 2),
        ):
            quarter = picture.crop((left, top, left + width // 2, top + height // 2))
            pixels.append(_bytes(ImageOps.fit(quarter, (size, size))))
            names.append(f"{group}, {name}")
            groups.append(group)
    return Collection(
        "photographs",
        "pictures",
        torch.stack(pixels),
        tuple(names),
        tuple(groups),
        ("photographs of scikit-image and scikit-learn, each cut into its four quarters, which share no pixel",),
    )


def photograph(name: str) -> UInt8[Tensor, "3 h w"]:
    """One of the real photographs of scikit-image and scikit-learn, whole.

    Raises:
        DataError: a name that is not known, or a package that is not installed.
    """
    files = {each: file for folder in _folders() for each, file in folder.items()}
    if name not in files:
        raise DataError(f"the photograph {name!r}", "is not known", f"Choose one of {', '.join(sorted(files))}")
    return _bytes(_open(files[name]))


def _folders() -> list[dict[str, Path]]:
    found = []
    for package, files in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            name = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[package]
            raise DataError(name, "is not installed; it brings these photographs", "pip install 'priorscope[examples]'")
        folder = Path(spec.origin).parent / {"skimage": "data", "sklearn": "datasets/images"}[package]
        found.append({name: folder / file for name, file in files.items()})
    return found


def _open(file: Path) -> Image.Image:
    """The picture, upright, in RGB."""
    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in ("F", "I") or picture.mode.startswith("I;"):
                raise DataError(str(file), f"has more than 8 bits a pixel (mode {picture.mode})", "Save it with 8 bits")
            if picture.has_transparency_data:
                rgba = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            return picture.convert("RGB")
    except FileNotFoundError as error:
        raise DataError(str(file), "does not exist", "Install the package that brings it anew") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        cause = str(error).replace(str(file), "the file").rstrip(".")
        raise DataError(str(file), f"is not a readable picture ({cause})", "Remove it, or save it anew") from error


def _centre(wide: int, size: int) -> tuple[int, int, int, int]:
    start = (wide - size) // 2
    return start, start, start + size, start + size


def _bytes(picture: Image.Image) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
