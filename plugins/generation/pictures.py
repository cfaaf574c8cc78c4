"""Pictures for the report: real images, those of the best candidates, and one noise as many candidates see it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pdiff_plugins.generation.evaluation import Bench, images_of
from torch import Tensor, nn

from pdiff import Candidates, Picture, explain_write_errors

SIDE = 8  # images per row and column of a grid


def to_pixels(image: Tensor) -> Tensor:
    """Return an image `(C, H, W)` in [-1, 1] as matplotlib takes it, `(H, W)` or `(H, W, 3)` in [0, 1]."""
    image = (image.clamp(-1, 1) / 2 + 0.5).nan_to_num(0.5).cpu()
    return image[0] if len(image) == 1 else image.permute(1, 2, 0)


def save_grid(
    path: Path, rows: Sequence[Sequence[Tensor]], names: Sequence[str] = (), titles: Sequence[str] = ()
) -> None:
    """Write rows of images `(C, H, W)`, all of one shape, as a PNG; `names` stand beside the rows, `titles` above."""
    from matplotlib.figure import Figure

    columns, (high, wide) = max(len(row) for row in rows), rows[0][0].shape[-2:]
    above = 0.1 + 0.15 * max(title.count("\n") + 1 for title in titles) if titles else 0
    beside = max(1.3, 0.08 * max(map(len, names)) + 0.1) if names else 0
    figure = Figure(figsize=(0.62 * columns + beside, 0.62 * high / wide * len(rows) + above))
    left = beside / figure.get_figwidth()
    axes = figure.subplots(len(rows), columns, squeeze=False)
    top = 1 - above / figure.get_figheight()
    figure.subplots_adjust(left=left, right=1, bottom=0, top=top, wspace=0.05, hspace=0.05)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, row in zip(axes, rows, strict=True):
        for axis, image in zip(line, row, strict=False):
            axis.imshow(to_pixels(image), cmap="gray", vmin=0, vmax=1)
    for axis, title in zip(axes[0], titles, strict=False):
        axis.set_title(title, fontsize=8, pad=3)
    for line, name in zip(axes, names, strict=False):
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9)
    with explain_write_errors(path):
        figure.savefig(path, dpi=120)


def in_rows(images: Tensor) -> list[Tensor]:
    """Return images `(B, C, H, W)` as rows of a square grid."""
    return list(images[: SIDE * SIDE].split(SIDE))


def draw_real(bench: Bench, folder: Path) -> Picture:
    """Write real images."""
    real = bench.split.resized(bench.split.pixels(slice(0, SIDE * SIDE)))
    save_grid(folder / "images_real.png", in_rows(real))
    return Picture("images_real.png", "Real images", "The first images of the test split.")


def draw_pictures(model: nn.Module, bench: Bench, picks: Mapping[str, Candidates], folder: Path) -> list[Picture]:
    """Write the pictures and return what they show.

    Args:
        model: the network.
        bench: of the split `test`.
        picks: a few candidates of each source, the best on `select` first.
        folder: where to.
    """
    pictures = [draw_real(bench, folder)]
    for source in [name for name in ("trained", "generated") if name in picks]:
        best = picks[source].take([0])
        images = torch.cat([images for _, images in images_of(model, best, bench, SIDE * SIDE)])
        save_grid(folder / f"images_{source}.png", in_rows(images))
        caption = f"What the {source} network that is best on the select split makes of the first noises."
        pictures.append(Picture(f"images_{source}.png", f"Images of the best {source}", caption))
    one_noise = [[images[0] for _, images in images_of(model, group, bench, 1)] for group in picks.values()]
    save_grid(folder / "one_noise.png", one_noise, list(picks))
    caption = "Rows: sources; columns: what candidates make of the same noise, from the best on select to the worst."
    return [*pictures, Picture("one_noise.png", "One noise, many candidates", caption)]
