"""Pictures for the report of a run with conditions: what networks for different classes make of the same noise."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pdiff_plugins.generation.evaluation import Bench, images_of
from pdiff_plugins.generation.pictures import draw_real, save_grid
from pdiff_plugins.images.class_sets import members
from torch import Tensor, nn
from torch.nn.functional import pad

from pdiff import Candidates, Picture

NOISES = 3  # of each source in the picture of all sources, where these are few
FEW = 5
MANY = 8  # of the source that has a picture of its own
SHORT = 3  # characters of class names that stand side by side


def titles_of(names: Sequence[str], candidates: Candidates) -> list[str]:
    """Return the class names of each candidate's set, side by side, or below each other where they are long."""
    between = " " if max(map(len, names)) <= SHORT else "\n"
    return [between.join(names[label] for label in labels) for labels in members(names, candidates.conditions)]


def images_of_each(model: nn.Module, candidates: Candidates, bench: Bench, count: int) -> list[Tensor]:
    """Return what each candidate makes of the first noises `(count, C, H, W)`."""
    found: list[list[Tensor]] = [[] for _ in candidates]
    for index, images in images_of(model, candidates, bench, count):
        found[index].append(images)
    return [torch.cat(batches) for batches in found]


def one_below_the_other(images: Tensor) -> Tensor:
    """Return images `(B, C, H, W)` as one `(C, B (H + 1), W)`, a white line below each."""
    return pad(images, (0, 0, 0, 1), value=1.0).transpose(0, 1).flatten(1, 2)


def draw_conditional_pictures(
    model: nn.Module, bench: Bench, picks: Mapping[str, Candidates], folder: Path
) -> list[Picture]:
    """Write the pictures and return what they show.

    Args:
        model: the network.
        bench: of the split `test`.
        picks: candidates of each source for a few conditions, the same ones in the same order.
        folder: where to.
    """
    titles = titles_of(bench.classes, next(iter(picks.values())))
    made = {source: images_of_each(model, group, bench, MANY) for source, group in picks.items()}
    count = NOISES if len(made) <= FEW else 1
    rows = [[one_below_the_other(images[:count]) for images in group] for group in made.values()]
    save_grid(folder / "one_noise_many_conditions.png", rows, list(picks), titles)
    caption = (
        f"Rows: sources, what they make of {f'the same {count} noises' if count > 1 else 'one noise'}; columns: the "
        "classes that the networks are for. Along a row of images nothing changes but the condition."
    )
    pictures = [draw_real(bench, folder)]
    pictures.append(Picture("one_noise_many_conditions.png", "One noise, many conditions", caption))
    source = "generated" if "generated" in made else next(iter(made))
    save_grid(folder / "many_noises_many_conditions.png", list(zip(*made[source], strict=True)), (), titles)
    caption = f"What the {source} networks make; rows: noises, columns: the classes that they are for."
    return [*pictures, Picture("many_noises_many_conditions.png", "Many noises, many conditions", caption)]
