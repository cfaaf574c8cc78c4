"""Scenes of scikit-learn's handwritten digits on textured canvases: boxes and masks, label maps for segmentation.

Pixels are computed in integers alone, so that a scene is the same on every machine.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from functools import cache as remember
from pathlib import Path

import numpy as np
from numpy.random import Generator

from pdiff import PdiffError, check_positive, check_type, derive_seed, explain_write_errors, new_folder, progress

CLASSES = tuple("0123456789")
GROUPS = {"train": (0, 60), "select": (60, 75), "test": (75, 100)}  # shares of the 1,797 digits, in percent
FORMAT = 2  # to be raised when the same settings shall give other scenes
MOST_DIGITS = 8
TRIES = 60  # places that are tried for one digit
WHERE = "task.data.scenes"


@remember
def cubic_weights(cells: int, pixels: int) -> np.ndarray:
    """Return the weights of cubic interpolation (Catmull-Rom) from a row of cells to a row of pixels.

    Both rows span the same length. What lies beyond an end equals the last cell.

    Returns:
        `(pixels, cells)`, int64; each row sums to 2^19.
    """
    rows = np.arange(pixels)
    position = ((2 * rows + 1) * cells - pixels) * 32 // pixels  # of the pixel's centre, in 1/64 cell
    cell, t = position >> 6, position & 63
    t2, t3 = 64 * t**2, t**3
    taps = (2 * t2 - t3 - 4096 * t, 3 * t3 - 5 * t2 + 2 * 64**3, 4 * t2 - 3 * t3 + 4096 * t, t3 - t2)
    weights = np.zeros((pixels, cells), np.int64)
    for offset, tap in enumerate(taps, -1):
        np.add.at(weights, (rows, np.clip(cell + offset, 0, cells - 1)), tap)
    weights.flags.writeable = False
    return weights


def enlarge(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an integer grid `(h, w, C)` as `(height, width, C)`, smoothly interpolated and rounded."""
    h, w, channels = grid.shape
    tall = cubic_weights(h, height) @ grid.reshape(h, w * channels)
    wide = cubic_weights(w, width) @ tall.reshape(height, w, channels)
    return (wide + (1 << 37)) >> 38


def paint_canvas(rng: Generator, size: int) -> np.ndarray:
    """Return a background `(size, size, 3)`, int64: colour noise in two scales, stripes, and discs and rings."""
    coarse = rng.integers(-36, 37, (3, 3, 1)) + rng.integers(-28, 29, (3, 3, 3))
    fine = rng.integers(-14, 15, (12, 12, 1)) + rng.integers(-10, 11, (12, 12, 3))
    canvas = rng.integers(88, 168) + rng.integers(-28, 29, 3) + enlarge(enlarge(coarse, 12, 12) + fine, size, size)
    y, x = np.ogrid[:size, :size]
    a, b = rng.integers(-4, 5, 2)
    period = (1 + abs(a) + abs(b)) * int(rng.integers(size // 16, size // 5))
    wave = abs(2 * ((a * x + b * y) % period) - period)
    canvas += wave[..., None] * rng.integers(-24, 25, 3) // period
    for _ in range(rng.integers(3, 8)):
        row, column = rng.integers(0, size, 2)
        radius = int(rng.integers(size // 24, size // 6))
        hole = radius * int(rng.integers(0, 2)) * 3 // 4
        distance = (y - row) ** 2 + (x - column) ** 2
        canvas[(hole**2 <= distance) & (distance < radius**2)] += rng.integers(-36, 37, 3)
    return canvas


def ink(digit: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the opacity of an enlarged digit, 0 to 256, cropped to where it is above 0.

    Args:
        digit: `(8, 8)`, 0 to 16.
        height: of the digit's 8 cells, in pixels.
        width: of the digit's 8 cells, in pixels.
    """
    grid = np.pad(digit.astype(np.int64), 1)[..., None] * 16
    opacity = np.clip(2 * enlarge(grid, height * 10 // 8, width * 10 // 8)[..., 0] - 128, 0, 256)
    rows, columns = np.flatnonzero(opacity.any(1)), np.flatnonzero(opacity.any(0))
    return opacity[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def ink_colour(rng: Generator, ground: np.ndarray) -> np.ndarray:
    """Return a colour `(3,)` that is darker or lighter than the mean colour `ground` `(3,)`, whichever has room."""
    lighter = ground.sum() < 3 * rng.integers(96, 160)
    contrast = int(rng.integers(56, 112))
    tint = rng.integers(-40, 41, 3)
    return np.clip(ground + (contrast if lighter else -contrast) + tint - tint.sum() // 3, 0, 255)


def find_place(rng: Generator, digit: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, tuple[slice, slice]] | None:
    """Return the opacity of `digit` in a random size and a free place for it, or None when no place was found.

    Args:
        rng: where the sizes and places come from.
        digit: `(8, 8)`, 0 to 16.
        taken: `(size, size)`, bool; where other digits are.
    """
    size = len(taken)
    for _ in range(TRIES):
        height = int(rng.integers(size * 20 // 100, size * 38 // 100 + 1))
        opacity = ink(digit, height, height * int(rng.integers(80, 121)) // 100)
        h, w = opacity.shape
        top, left = int(rng.integers(0, size - h + 1)), int(rng.integers(0, size - w + 1))
        place = slice(top, top + h), slice(left, left + w)
        if not taken[place].any():
            return opacity, place
    return None


def compose_scene(
    digits: np.ndarray, labels: np.ndarray, rng: Generator, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw digits in random sizes, places and colours on a textured canvas; their boxes do not overlap.

    The digits are placed in order. The first that finds no place is left out, as are those after it.

    Args:
        digits: `(D, 8, 8)`, 0 to 16.
        labels: `(D,)`, 0 to 9.
        rng: where all randomness comes from.
        size: side of the scene in pixels, from 32 on.

    Returns:
        The image `(size, size, 3)`, uint8; the label map `(size, size)`, uint8, 0 for the background and the class + 1
        where a digit is at least 3/8 opaque; the boxes `(n, 4)` around these pixels, int64, left, top, width and
        height; the classes `(n,)`, int64.
    """
    canvas = paint_canvas(rng, size)
    label_map, taken, boxes = np.zeros((size, size), np.uint8), np.zeros((size, size), bool), []
    for digit, label in zip(digits, labels, strict=True):
        found = find_place(rng, digit, taken)
        if found is None:
            break
        opacity, place = found
        visible = opacity >= 96
        ground = canvas[place]
        colour = ink_colour(rng, ground.sum((0, 1)) // opacity.size)
        cover = (opacity * int(rng.integers(208, 257)) >> 8)[..., None]
        canvas[place] = (ground * (256 - cover) + colour * cover) >> 8
        label_map[place][visible] = label + 1
        taken[place] = True
        rows, columns = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
        corner = place[1].start + columns[0], place[0].start + rows[0]
        boxes.append((*corner, np.ptp(columns) + 1, np.ptp(rows) + 1))
    grain = int(rng.integers(10, 26))
    image = np.clip(canvas + rng.integers(-grain, grain + 1, canvas.shape), 0, 255).astype(np.uint8)
    return image, label_map, np.array(boxes, np.int64).reshape(-1, 4), np.array(labels[: len(boxes)], np.int64)


def png(pixels: np.ndarray) -> bytes:
    """Return an image `(H, W, 3)` or `(H, W)`, uint8, as a lightly compressed PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def run_lengths(mask: np.ndarray) -> list[int]:
    """Return COCO's plain run lengths of a mask `(H, W)`, bool: down the columns, those outside first, then in turn."""
    pixels = mask.T.ravel()
    changes = np.flatnonzero(np.diff(pixels, prepend=False))
    return np.diff(changes, prepend=0, append=len(pixels)).tolist()


def digit_groups(seed: int) -> dict[str, np.ndarray]:
    """Return for each split the rows of scikit-learn's digits that it may use; no row is in two splits."""
    rows = np.random.default_rng(derive_seed(seed, "groups")).permutation(1797)
    return {split: rows[1797 * first // 100 : 1797 * last // 100] for split, (first, last) in GROUPS.items()}


def scene_files(settings: dict) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every file of a data set."""
    from sklearn.datasets import load_digits

    raw, (fewest, most), size = load_digits(), settings["digits"], settings["size"]
    yield "settings.json", json.dumps(settings, indent=2).encode()
    for split, group in digit_groups(settings["seed"]).items():
        images, annotations = [], []
        for index in range(settings[split]):
            rng = np.random.default_rng(derive_seed(settings["seed"], split, index))
            rows = group[rng.integers(0, len(group), rng.integers(fewest, most + 1))]
            image, label_map, boxes, classes = compose_scene(raw.images[rows], raw.target[rows], rng, size)
            name = f"{index:06d}.png"
            yield f"{split}/{name}", png(image)
            yield f"{split}_labels/{name}", png(label_map)
            images.append({"id": index + 1, "file_name": name, "width": size, "height": size})
            for row, (x, y, w, h), label in zip(rows, boxes.tolist(), classes.tolist(), strict=False):
                visible = np.zeros((size, size), bool)
                visible[y : y + h, x : x + w] = label_map[y : y + h, x : x + w]
                annotation = {"id": len(annotations) + 1, "image_id": index + 1, "category_id": label + 1}
                digit = {"bbox": [x, y, w, h], "area": int(visible.sum()), "iscrowd": 0, "digit": int(row)}
                mask = {"size": [size, size], "counts": run_lengths(visible)}
                annotations.append(annotation | digit | {"segmentation": mask})
        categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)]
        coco = {"images": images, "annotations": annotations, "categories": categories}
        yield f"{split}.json", json.dumps(coco).encode()


def file_count(settings: dict) -> int:
    """Return the number of files that `scene_files` yields."""
    return 1 + sum(1 + 2 * settings[split] for split in GROUPS)


def write_scenes(folder: Path, settings: dict) -> None:
    """Write a data set; keep one that another process has written meanwhile."""
    checksums = {}
    with new_folder(folder) as aside, progress("compose scenes", file_count(settings)) as advance:
        for name in (*GROUPS, *(f"{split}_labels" for split in GROUPS)):
            (aside / name).mkdir()
        for name, content in scene_files(settings):
            (aside / name).write_bytes(content)
            checksums[name] = hashlib.sha256(content).hexdigest()
            advance()
        (aside / "checksums.json").write_text(json.dumps(checksums, indent=0), encoding="utf-8")


def read_bytes(folder: Path, name: str) -> bytes:
    """Return the content of a file of a data set, or raise a `PdiffError` that names it and what to do."""
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise damaged(folder, name, f"cannot be read ({error.strerror})") from None


def damaged(folder: Path, name: str, problem: str) -> PdiffError:
    """Return the error for a file of a data set."""
    return PdiffError(f"{folder / name}: {problem}. Delete the folder {folder} to compose it again.")


def check_scenes(folder: Path, settings: dict) -> None:
    """Raise a `PdiffError` that names the first file of a data set that is missing or is not as it was written."""
    try:
        checksums = dict(json.loads(read_bytes(folder, "checksums.json")))
    except (ValueError, TypeError) as error:
        raise damaged(folder, "checksums.json", f"is damaged ({error})") from None
    if len(checksums) != file_count(settings):
        raise damaged(folder, "checksums.json", f"names {len(checksums)} files, expected {file_count(settings)}")
    for name, checksum in checksums.items():
        if hashlib.sha256(read_bytes(folder, name)).hexdigest() != checksum:
            raise damaged(folder, name, "is damaged, its checksum is not the one that was written")


def check_settings(train: int, select: int, test: int, size: int, digits: tuple[int, int], seed: int) -> dict:
    """Return the settings as one dict that JSON can hold, or raise a `PdiffError` for the first that is invalid."""
    check_positive(WHERE, train=train, select=select, test=test, size=size)
    if size < 32:
        raise PdiffError(f"{WHERE}.size: got {size}, expected an integer from 32 on.")
    rule = f"expected the fewest and the most digits of a scene, two integers from 1 to {MOST_DIGITS} in order"
    integers = isinstance(digits, (list, tuple)) and len(digits) == 2 and all(type(n) is int for n in digits)
    if not integers or not 1 <= digits[0] <= digits[1] <= MOST_DIGITS:
        raise PdiffError(f"{WHERE}.digits: got {digits!r}, {rule}.")
    check_type(seed, int, f"{WHERE}.seed")
    counts = {"train": train, "select": select, "test": test}
    return {**counts, "size": size, "digits": list(digits), "seed": seed, "format": FORMAT}


def compose_scenes(
    train: int = 1000,
    select: int = 150,
    test: int = 300,
    size: int = 128,
    digits: tuple[int, int] = (2, 5),
    seed: int = 0,
    cache: str | None = None,
) -> Path:
    """Write the scenes once and return their folder; a later call only checks that every file is as it was written.

    For each split the folder has images (`train/000000.png`, RGB), label maps (`train_labels/000000.png`, 8 bits, 0 for
    the background, 1 to 10 for the digits), boxes and masks (`train.json`, COCO's format; `area` counts the digit's
    pixels, `digit` is its row in scikit-learn's set). The splits share no image of a digit. A scene depends on the
    seed, the split, its number, `size` and `digits`, and not on the number of scenes.

    Args:
        train: number of training scenes.
        select: number of scenes that choose the best candidate.
        test: number of test scenes.
        size: side of a scene in pixels, from 32 on.
        digits: fewest and most digits of a scene; those that find no place are left out.
        seed: of all randomness; a run gives its own where the config names none.
        cache: folder of the scenes' folder; default: `$XDG_CACHE_HOME/pdiff`, else `~/.cache/pdiff`.

    Raises:
        PdiffError: a setting is invalid, the cache cannot be written, or a file in it is missing or damaged.
    """
    settings = check_settings(train, select, test, size, digits, seed)
    if cache is None:
        cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "pdiff")
    elif not cache or not isinstance(cache, (str, Path)):
        raise PdiffError(f"{WHERE}.cache: got {cache!r}, expected a folder.")
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    folder = Path(os.path.expanduser(cache)) / f"digit_scenes_{key}"
    with explain_write_errors(folder.parent, f"Make room or give another folder as {WHERE}.cache."):
        if not folder.exists():
            write_scenes(folder, settings)
    check_scenes(folder, settings)
    return folder
