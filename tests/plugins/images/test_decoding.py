"""Images of every kind that people have, written here, and the bytes that they are read as."""

import math

import numpy as np
import pytest
from pdiff_plugins.images.decoding import Decoder
from PIL import Image

from pdiff import PdiffError

RAMP = np.arange(64).reshape(8, 8)


@pytest.fixture
def read(tmp_path):
    """Return a function that writes an image and reads it; what it saves with and what it reads with are told apart."""

    def pixels(image, name: str = "a.png", decoder: Decoder | None = None, **save) -> np.ndarray:
        image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        image.save(tmp_path / name, **save)
        found = (decoder or Decoder()).read(str(tmp_path / name))
        assert found.mode == "RGB"
        return np.asarray(found)

    return pixels


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits_are_scaled_by_their_range(read, name):
    decoder = Decoder()
    found = read((RAMP * 1040).astype(np.uint16), name, decoder)
    assert np.array_equal(found[..., 0], np.rint(RAMP * 1040 / 257))
    assert (found[..., 0] == found[..., 2]).all()
    assert (found == 255).mean() < 0.1
    decoder.check()
    assert decoder.notes() == ["1 are of more than 8 bits, scaled so that 0 is black and 65535 (of floats 1) white"]


def test_sixteen_bits_of_which_four_are_empty_ask_for_black_and_white(read):
    decoder = Decoder()
    read((RAMP * 65).astype(np.uint16), decoder=decoder)
    line = r"^task\.data\.values: the images of 16 bits reach 4095 of 65535.* Give task\.data\.values=\[0, 4095\]"
    with pytest.raises(PdiffError, match=line):
        decoder.check()
    given = Decoder(values=[0, 4095])
    assert read((RAMP * 65).astype(np.uint16), decoder=given)[..., 0].max() == 255
    given.check()


def test_floats_between_zero_and_one_are_scaled(read):
    found = read((RAMP / 63).astype(np.float32), "a.tif")
    assert np.array_equal(found[..., 1], np.rint(RAMP / 63 * 255))


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (RAMP.astype(np.float32), r"got values from 0 to 63 \(floats\), of which nothing says what is black"),
        (RAMP.astype(np.float32) - 1, r"got values from -1 to 62 \(floats\)"),
        (RAMP.astype(np.int32), r"got values from 0 to 63 \(32-bit integers\)"),
        (np.full((8, 8), np.nan, np.float32), "got values that are no finite numbers. Mend it"),
        (np.full((8, 8), np.inf, np.float32), "got values that are no finite numbers. Mend it"),
    ],
)
def test_values_of_an_unknown_range_are_refused_with_the_file(read, tmp_path, pixels, words):
    with pytest.raises(PdiffError, match=rf"a\.tif: {words}") as caught:
        read(pixels, "a.tif")
    assert str(caught.value).startswith(f"{tmp_path}/a.tif: ")


@pytest.mark.parametrize("kind", [np.float32, np.int32, np.uint16])
def test_values_of_a_given_range_are_scaled(read, kind):
    found = read((10 + RAMP).astype(kind), "a.tif", Decoder(values=[10, 73]))
    assert np.array_equal(found[..., 0], np.rint(RAMP * 255 / 63))


def test_values_outside_the_given_range_are_refused(read):
    with pytest.raises(PdiffError, match=r"a\.tif: got values from 0 to 63, expected 0 to 40, as task\.data\.values"):
        read(RAMP.astype(np.float32), "a.tif", Decoder(values=[0, 40]))


@pytest.mark.parametrize("values", [[1], [0, 1, 2], [1, 0], [0, 0], "0,1", ["0", "1"], 255, [0, math.inf]])
def test_range_that_is_none_is_refused(values):
    with pytest.raises(PdiffError, match=r"^task\.data\.values: got .*, expected two numbers in order\. Give"):
        Decoder(values=values)


def test_background_that_is_no_colour_is_refused():
    with pytest.raises(PdiffError, match=r"^task\.data\.background: got 'wite', expected a colour\. Give"):
        Decoder("wite")


def transparent(mode: str) -> Image.Image:
    """Return an image of one dark grey, its upper half transparent."""
    alpha = np.repeat([[0] * 8, [255] * 8], 4, 0).astype(np.uint8)
    grey = np.full((8, 8), 40, np.uint8)
    channels = [grey] * (len(mode) - 1) + [alpha]
    return Image.merge(mode, [Image.fromarray(channel) for channel in channels])


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize(("background", "expected"), [("white", 255), ("black", 0), ("#808080", 128)])
def test_transparent_pixels_lie_on_the_background(read, mode, background, expected):
    decoder = Decoder(background)
    found = read(transparent(mode), decoder=decoder)
    assert (found[:4] == expected).all()
    assert (found[4:] == 40).all()
    assert decoder.notes() == [f"1 are transparent, and lie on {background} (task.data.background)"]


def test_half_transparent_pixels_are_mixed_with_the_background(read):
    assert read(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))[0, 0].tolist() == [127] * 3


def test_opaque_alpha_changes_nothing(read):
    decoder = Decoder()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    opaque = image.copy()
    opaque.putalpha(255)
    assert np.array_equal(read(opaque, decoder=decoder), np.asarray(image))
    assert decoder.notes() == []


def test_palette_is_looked_up_and_its_transparent_colour_lies_on_the_background(read):
    image = Image.frombytes("P", (8, 8), (RAMP % 2).astype(np.uint8).tobytes())
    image.putpalette([200, 10, 20, 0, 90, 30])
    assert read(image)[0, :2].tolist() == [[200, 10, 20], [0, 90, 30]]
    assert read(image, transparency=0)[0, :2].tolist() == [[255] * 3, [0, 90, 30]]


def test_grey_that_stands_for_transparent_lies_on_the_background(read):
    assert read(Image.new("L", (4, 4), 7), transparency=7).min() == 255


def test_one_bit_is_black_and_white(read):
    assert sorted(np.unique(read(RAMP % 3 == 0))) == [0, 255]


def test_cmyk_is_turned_into_colours(read):
    found = read(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "a.tif")
    assert found[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_photograph_is_turned_upright(read, name):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # the left half of what the sensor saw is the upper half of the scene
    found = read(pixels, name, exif=exif)
    assert found.shape == (16, 8, 3)
    assert (found[:6] > 200).all()
    assert (found[10:] < 50).all()


@pytest.mark.parametrize(("orientation", "notes"), [(0, 0), (1, 0), (3, 1), (9, 0)])
def test_photographs_that_are_turned_are_counted(read, orientation, notes):
    exif, decoder = Image.Exif(), Decoder()
    exif[0x0112] = orientation
    read(np.zeros((8, 16, 3), np.uint8), "a.jpg", decoder, exif=exif)
    assert len(decoder.notes()) == notes


@pytest.mark.parametrize("name", ["a.gif", "a.tif", "a.webp"])
def test_of_several_frames_the_first_is_taken(read, name):
    decoder, frames = Decoder(), [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime")]
    found = read(frames[0], name, decoder, save_all=True, append_images=frames[1:])
    assert found[0, 0, 0] > 200
    assert found[0, 0, 1] < 60
    assert decoder.notes() == ["1 are animated or of several pages, of which the first is taken"]


def test_image_is_known_by_its_content_and_not_by_its_suffix(read):
    assert (read(Image.new("RGB", (8, 8), "red"), "a.jpg", format="png")[0, 0] == [255, 0, 0]).all()


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\xff\xd8\xff", b"II*\0"])
def test_file_that_is_no_image_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(PdiffError, match=r"/a\.png: cannot be read as an image \(.*\)\. Mend it, or take it"):
        Decoder().read(str(tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.gif"])
def test_file_that_is_cut_off_is_refused_by_name(read, tmp_path, name):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    read(image, name)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(PdiffError, match="cannot be read as an image"):
        Decoder().read(str(path))
