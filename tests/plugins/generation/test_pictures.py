"""Pictures of images in grey and in colour."""

import torch
from pdiff_plugins.generation.pictures import in_rows, save_grid, to_pixels


def test_grey_and_colour_are_scaled_to_what_is_drawn():
    assert to_pixels(torch.tensor([[[-1.0, 0.0, 3.0]]])).tolist() == [[0.0, 0.5, 1.0]]
    colour = to_pixels(torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1).expand(3, 2, 4))
    assert colour.shape == (2, 4, 3)
    assert colour[1, 2].tolist() == [0.0, 0.5, 1.0]


def test_pixel_that_is_no_number_is_grey():
    assert to_pixels(torch.tensor([[[torch.nan]]])).item() == 0.5


def test_rows_of_different_lengths_are_drawn(tmp_path):
    images = torch.rand(11, 3, 4, 4)
    assert [len(row) for row in in_rows(images)] == [8, 3]
    save_grid(tmp_path / "grid.png", in_rows(images), ["one", "two"])
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
