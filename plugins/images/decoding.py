"""An image file as bytes of red, green and blue, whatever it holds: depth, palette, transparency, rotation, frames."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps

from pdiff import PdiffError

SIXTEEN_BITS, FLOAT, INTEGER = ("I;16", "I;16L", "I;16B", "I;16N"), "F", "I"
WHITE_OF_16_BITS = 65_535
PNG_LIKE = ("PNG", "PPM")  # formats in which Pillow's mode of 32 bits means 16
TWELVE_BITS = 4095
TURNS = range(2, 9)  # EXIF's orientations but upright; others mean nothing
TURNED, COMPOSED, FRAMES, DEEP = "turned", "composed", "frames", "deep"


class Decoder:
    """Reads image files as RGB images of 8 bits, and counts what a reader of the results may want to know.

    Args:
        background: what transparent pixels lie on, a colour that Pillow knows.
        values: black and white of images with more than 8 bits; None: 0 and 65,535 of 16 bits, 0 and 1 of floats that
            lie in between.
    """

    def __init__(self, background: str = "white", values: Sequence[float] | None = None):
        try:
            self.background = ImageColor.getcolor(background, "RGBA")
        except ValueError:
            line = f"task.data.background: got {background!r}, expected a colour."
            raise PdiffError(f"{line} Give a name like black, or #rrggbb.") from None
        self.values = check_values(values)
        self.named, self.counts, self.brightest = background, Counter(), 0

    def read(self, path: str) -> Image.Image:
        """Return the image of a file, its first frame, upright, or raise a `PdiffError` that names the file."""
        try:
            with Image.open(path) as image:
                if image.format != "MPO" and getattr(image, "is_animated", False):
                    self.counts[FRAMES] += 1
                if image.getexif().get(ExifTags.Base.Orientation) in TURNS:
                    self.counts[TURNED] += 1
                image.load()
                return self.in_colour(path, ImageOps.exif_transpose(image), image.format)
        except PdiffError:
            raise
        except Exception as error:  # Pillow raises many kinds over a damaged file
            reason = " ".join(str(error).split())
            raise PdiffError(f"{path}: cannot be read as an image ({reason}). Mend it, or take it away.") from None

    def in_colour(self, path: str, image: Image.Image, form: str | None) -> Image.Image:
        """Return an image as RGB."""
        if image.mode in (*SIXTEEN_BITS, FLOAT, INTEGER):
            return self.scaled(path, image, form).convert("RGB")
        if not image.has_transparency_data:
            return image.convert("RGB")
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[0] == 255:
            return image.convert("RGB")
        self.counts[COMPOSED] += 1
        return Image.alpha_composite(Image.new("RGBA", image.size, self.background), image).convert("RGB")

    def scaled(self, path: str, image: Image.Image, form: str | None) -> Image.Image:
        """Return an image of more than 8 bits as one of 8, black and white where they are known to lie."""
        pixels = np.asarray(image).astype(np.float64)
        if not np.isfinite(pixels).all():
            raise PdiffError(f"{path}: got values that are no finite numbers. Mend it, or take it away.")
        sixteen = image.mode in SIXTEEN_BITS or (image.mode == INTEGER and form in PNG_LIKE)
        black, white = self.values or ((0, WHITE_OF_16_BITS) if sixteen else (0, 1))
        inside = black <= pixels.min() and pixels.max() <= white
        found = f"{path}: got values from {pixels.min():g} to {pixels.max():g}"
        if self.values and not inside:
            raise PdiffError(f"{found}, expected {black:g} to {white:g}, as task.data.values says. Change it.")
        if not self.values and not sixteen and (image.mode == INTEGER or not inside):
            kind = "32-bit integers" if image.mode == INTEGER else "floats"
            line = f"{found} ({kind}), of which nothing says what is black and what is white."
            raise PdiffError(f"{line} Give task.data.values=[black, white].")
        self.counts[DEEP] += 1
        if sixteen and self.values is None:
            self.brightest = max(self.brightest, int(pixels.max()))
        return Image.fromarray(np.rint((pixels - black) * (255 / (white - black))).astype(np.uint8))

    def check(self) -> None:
        """Raise a `PdiffError` when all images of 16 bits that were read use 12 bits or less: they would be black."""
        if 0 < self.brightest <= TWELVE_BITS:
            raise PdiffError(
                f"task.data.values: the images of 16 bits reach {self.brightest} of {WHITE_OF_16_BITS}, and would be "
                f"nearly black. Give task.data.values=[0, {TWELVE_BITS}], black and white of 12 bits, say."
            )

    def notes(self) -> list[str]:
        """Return what was done to some of the images that were read."""
        low, high = self.values or ("0", f"{WHITE_OF_16_BITS} (of floats 1)")
        words = {
            TURNED: "turned upright, as their EXIF says",
            COMPOSED: f"transparent, and lie on {self.named} (task.data.background)",
            FRAMES: "animated or of several pages, of which the first is taken",
            DEEP: f"of more than 8 bits, scaled so that {low} is black and {high} white",
        }
        return [f"{self.counts[key]} are {text}" for key, text in words.items() if self.counts[key]]


def check_values(values: Sequence[float] | None) -> Sequence[float] | None:
    """Return black and white, or raise a `PdiffError` unless they are two numbers in order."""
    pair = isinstance(values, list | tuple) and len(values) == 2
    numbers = pair and all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    if values is not None and not (numbers and values[0] < values[1]):
        line = f"task.data.values: got {values!r}, expected two numbers in order."
        raise PdiffError(f"{line} Give what is black and what is white, [0, 4095] for 12 bits.")
    return values
