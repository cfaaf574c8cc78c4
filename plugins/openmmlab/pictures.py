"""Image files, without decoding them."""

from PIL import ExifTags, Image


def image_size(path: str) -> tuple[int, int]:
    """Return height and width of an image as mmcv loads it: a photograph that was held upright is turned."""
    with Image.open(path) as image:
        width, height = image.size
        on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) > 4
    return (width, height) if on_its_side else (height, width)
