"""Words for where a population comes from: what a line says to do depends on it.

A collection has settings that give other checkpoints; to files that a user has brought none of them applies. Which
files are of one training nobody knows, unless the user says it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pdiff.weights.provenance import lineage_labels


@dataclass(frozen=True)
class Origin:
    """What lines say of a population, and what to do for another one.

    Attributes:
        alone: what its rows are where nothing tells trainings apart.
        block: what follows from that for some of them that are held out.
        branch: what one of several trainings that are told apart, and are held out whole, is called.
        branches: what these are called.
        apart: how to have several of these.
        more: how to have more of these.
        steps: how to have other checkpoints.
        late: how to leave the beginning of a training out.
        copies: why rows may repeat each other, and what to do.
        failed: why rows may be no better than chance, and what to do.
        basins: how to have rows of one basin.
        points: how to have more than a few points.
    """

    alone: str
    block: str
    branch: str
    branches: str
    apart: str
    more: str
    steps: str
    late: str
    copies: str
    failed: str
    basins: str
    points: str

    def count(self, number: int) -> str:
        """Return how many trainings that are told apart there are, in words."""
        return f"{number} {self.branch if number == 1 else self.branches}"

    def in_one_order(self, words: str, scattered: bool) -> str:
        """Return words on what to do, of `scattered` lineages with what puts their units into one order first."""
        return f"{CANONICAL}, or {words}" if scattered else words


CANONICAL = "bring their units into one order (fit.canonical=permutation, with ReLU permutation+scale)"
COLLECTED = Origin(
    alone="they are of one training",
    block="of a single training, which tells less than a branch of its own would (collect.branches)",
    branch="branch",
    branches="branches",
    apart="collect several branches (collect.branches)",
    more="collect more, in several branches (collect.branches)",
    steps="collect more checkpoints, over more steps or branches",
    late="raise collect.finetune.warmup",
    copies="The selection is not being trained: look at the training's rate and at what it freezes.",
    failed="The training failed: train longer, or at a lower rate.",
    basins="take fine-tunings of one (collect.branches, not collect.seeds)",
    points="fine-tune one network, longer or at a higher rate",
)
LINEAGES = replace(
    COLLECTED,
    branch="lineage",
    branches="lineages",
    apart="collect networks of several initialisations (collect.seeds)",
    more="collect more networks of other initialisations (collect.seeds)",
)
FILES = Origin(
    alone="they are of one training",
    block="of a single training, which tells less than one of its own would",
    branch="training",
    branches="trainings",
    apart="bring files of several trainings",
    more="bring files of more trainings of one network",
    steps="bring more files, of other steps or trainings",
    late="leave the early files out",
    copies="Files were given twice, or differ in nothing that is selected: leave the copies out, or select more.",
    failed=(
        "The files do not fit the task: check that task.data is what they were trained on, its classes in their order, "
        "and the names in the files (checkpoints.key, checkpoints.prefix)."
    ),
    basins="take the files of one training, or of fine-tunings of one network, alone (checkpoints.files)",
    points="take the files of one training alone, or of many more trainings",
)
UNKNOWN = replace(
    FILES,
    alone="they count as of one training, since their lineage is unknown (checkpoints.lineage)",
    block="as if of a single training, since their lineage is unknown (checkpoints.lineage)",
    branch="training that is told apart",
    branches="trainings that are told apart",
    apart="say which files are of one training (checkpoints.lineage)",
    more="say which files are of one training (checkpoints.lineage), and bring more",
    basins=f"{FILES.basins}; which are of which training can be said by checkpoints.lineage",
)


def is_imported(provenance: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether the rows were brought as files, not collected."""
    return any("file" in record for record in provenance)


def origin_of(provenance: Sequence[Mapping[str, Any]]) -> Origin:
    """Return the words for a population of this provenance."""
    if not is_imported(provenance):
        return LINEAGES if lineage_labels(provenance).any() else COLLECTED
    return FILES if any(record.get("network") is not None for record in provenance) else UNKNOWN


def sentence(words: str) -> str:
    """Return words that begin with a capital letter and end with a full stop."""
    return f"{words[:1].upper()}{words[1:].removesuffix('.')}."
