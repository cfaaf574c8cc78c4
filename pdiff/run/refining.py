"""Candidates of a source, trained on: each by itself, a few steps on the training loss of its own condition.

That is dear, so the evaluation keeps what came of it, and whoever comes later reads that.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pdiff.engine.behaving import Behaving
from pdiff.engine.training import checksum, train
from pdiff.run.behaviour import Behaviour, check_has_loss
from pdiff.run.keeping import read_kept, write_kept
from pdiff.run.spaces import SPACES, open_space
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError, check_not_negative, check_positive, known
from pdiff.runtime.storage import read_tensors_and_metadata, write_tensors
from pdiff.weights.conditions import Conditions

if TYPE_CHECKING:
    from pdiff.run.run import Run

TOGETHER = 64  # candidates that are trained at once, where nobody says it
LOOKED_AT = 64  # values of a vector, by which it is known again
NEAR = 1e-3  # how far these may be apart, over their size: what another device computes differs by rounding


@dataclass(frozen=True)
class Refinement:
    """How candidates are trained on.

    Attributes:
        of: the source that they come from.
        steps: of AdamW, on the training batches 0 to `steps` - 1; the rate falls to 0 by a cosine.
        lr: its rate.
        space: what is trained; see `open_space`.
        axes: of the space `subspace`.
        together: how many candidates are trained at once.
        weight_decay: of AdamW.
    """

    of: str
    steps: int
    lr: float
    space: str
    axes: int
    together: int
    weight_decay: float


def check_refinement(run: "Run", where: str, source: Mapping[str, Any], conditional: bool) -> None:
    """Raise a `PdiffError` for settings of a source `refined` that cannot be; `where` is its place in the config."""
    check_has_loss(run, where)
    for name in ("steps", "lr", "weight_decay"):
        check_not_negative(where, **{name: source.get(name, 0)})
    for name in ("axes", "together"):
        check_positive(where, **{name: source.get(name, 1)})
    if source.get("space", SPACES[0]) not in SPACES:
        raise PdiffError(f"{where}.space: got {source['space']!r}. {known(source['space'], SPACES)}")
    if conditional and source.get("num") is not None:
        line = f"got {source['num']}, expected none where networks are for conditions, for all of {source['of']} are"
        raise PdiffError(f"{where}.num: {line} taken. Leave it out.")


def looked_at(vectors: Tensor) -> Tensor:
    """Return some values of each of the vectors `(M, P)`, by which they are known again `(M, K)`."""
    size = vectors.shape[1]
    return vectors[:, torch.linspace(0, size - 1, min(size, LOOKED_AT)).round().long()]


def are_same(kept: Tensor, now: Tensor) -> bool:
    """Say whether two sets of values `(M, K)` are the same but for rounding."""
    if kept.shape != now.shape or not now.isfinite().all():
        return False
    return bool((kept - now).abs().max() <= NEAR * now.square().mean().sqrt())


def name_of(how: Refinement, count: int, conditions: Conditions | None) -> str:
    """Return the name of what is made of so many candidates, for their conditions: all that decides but the vectors."""
    digest = hashlib.sha256(json.dumps([asdict(how), count], sort_keys=True).encode())
    if conditions is not None:
        digest.update(json.dumps([list(conditions.names), conditions.values.tolist()]).encode())
    return f"refined.{digest.hexdigest()[:12]}"


def file_of(run: "Run", how: Refinement, count: int, conditions: Conditions | None) -> Path:
    """Return the file that keeps it."""
    return run.directory.folder("evaluate") / f"{name_of(how, count, conditions)}.vectors.safetensors"


class Refiner:
    """Trains vectors on; several processes do it together.

    Args:
        run: whose plugin has the hook `loss`.
        how: they are trained.
        conditions: of each vector `(M, C)`; None without conditions.
        name: of what is made, for files and logs.
        folder: where an interrupted training leaves what it needs to go on; None for nowhere.
    """

    def __init__(self, run: "Run", how: Refinement, conditions: Conditions | None, name: str, folder: Path | None):
        self.run, self.how, self.name, self.folder = run, how, name, folder
        self.behaviour, self.place = Behaviour(run, conditions), open_space(run, how.space, how.axes)

    def __call__(self, vectors: Tensor, first: int) -> tuple[Tensor, float]:
        """Return what becomes of some of the vectors `(n, P)`, and the seconds it took; NaN where it was interrupted.

        Args:
            vectors: where they begin `(n, P)`.
            first: number of the first of them among all.
        """
        name, whole = f"{self.name}.{first}", checksum(vectors)
        path = self.folder and self.folder / f"{name}.done.state.safetensors"
        done = processes.on_main(lambda: read_done(path, whole) if path else None)
        if done is not None:
            return done
        goes_on = processes.on_main(lambda: bool(self.folder) and (self.folder / f"{name}.state.safetensors").exists())
        begun = time.perf_counter()
        found = self.trained(vectors, first, name, whole)
        seconds = math.nan if goes_on else time.perf_counter() - begun  # nobody knows what the first attempt took
        if path:
            metadata = {"of": whole, "seconds": str(seconds)}
            processes.on_main(lambda: write_tensors(path, {"vectors": found}, metadata))
        return found, seconds

    def trained(self, vectors: Tensor, first: int, name: str, whole: str) -> Tensor:
        """Return what the training of a block makes of its vectors `(n, P)`; `name` and `whole` tell it from others."""
        points, how = self.place(vectors), self.how
        numbers = torch.arange(len(vectors))

        def losses(made: Tensor, own: Tensor, step: int) -> Tensor:
            return self.behaviour(made, own + first, step)

        train(
            Behaving(points, losses, together=True),
            numbers,
            name,
            self.folder,
            self.run.seed("refined"),
            f"{name} {whole}",
            steps=how.steps,
            batch_size=len(vectors),
            lr=how.lr,
            weight_decay=how.weight_decay,
            schedule="cosine",
            ema=0.0,
            amp=False,
            device=self.run.device,
        )
        with torch.no_grad():
            found = points(numbers.to(self.run.device)).cpu()
        check_finite(how, found)
        return found


def refine(
    run: "Run", how: Refinement, vectors: Tensor, conditions: Conditions | None, folder: Path | None = None
) -> tuple[Tensor, float]:
    """Return vectors `(M, P)`, trained on, and the seconds that it took; see `Refiner`."""
    begun = time.perf_counter()
    refiner = Refiner(run, how, conditions, name_of(how, len(vectors), conditions), folder)
    seconds = time.perf_counter() - begun
    blocks = [refiner(vectors[first : first + how.together], first) for first in range(0, len(vectors), how.together)]
    run.load_base()  # whatever the hook left in the network
    return torch.cat([block for block, _ in blocks]), seconds + sum(took for _, took in blocks)


def check_finite(how: Refinement, vectors: Tensor) -> None:
    """Raise a `PdiffError` for vectors `(n, P)` that a training has driven to infinity."""
    if not vectors.isfinite().all():
        line = f"got NaN or infinity after {how.steps} steps on the candidates of {how.of}, expected finite vectors"
        raise PdiffError(f"source refined: {line}. Lower its lr.")


def read_done(path: Path, whole: str) -> tuple[Tensor, float] | None:
    """Return the vectors of a finished block, and their seconds; None where there is none of those vectors."""
    if not path.exists():
        return None
    tensors, metadata = read_tensors_and_metadata(path)
    return (tensors["vectors"], float(metadata["seconds"])) if metadata["of"] == whole else None


def read_refined(
    run: "Run", how: Refinement, vectors: Tensor, conditions: Conditions | None
) -> tuple[Tensor, float] | None:
    """Return what is kept of these vectors, and the seconds that it took; None for nothing."""
    path, own = file_of(run, how, len(vectors), conditions), looked_at(vectors)
    return read_kept(path, lambda tensors: are_same(tensors["begun"], own))


def refined(run: "Run", how: Refinement, vectors: Tensor, conditions: Conditions | None) -> tuple[Tensor, float]:
    """Return what is kept of these vectors, else what `refine` makes of them, and the seconds that it took."""
    kept = read_refined(run, how, vectors, conditions)
    if kept is None and processes.size() > 1:
        path = file_of(run, how, len(vectors), conditions)
        raise PdiffError(f"{path}: is missing, or of other vectors. Repeat its stage: --stage evaluate --overwrite.")
    return kept or refine(run, how, vectors, conditions)


def keep_refined(run: "Run", how: Refinement, vectors: Tensor, conditions: Conditions | None) -> tuple[Tensor, float]:
    """Return the same as `refined`, once it is on disk; several processes make it together."""
    path = file_of(run, how, len(vectors), conditions)
    if processes.on_main(lambda: read_refined(run, how, vectors, conditions) is None):
        found, seconds = refine(run, how, vectors, conditions, path.parent)
        tensors = {"begun": looked_at(vectors), "vectors": found}
        processes.on_main(lambda: write_kept(path, tensors, seconds))
        processes.on_main(lambda: remove_states(path))
    return read_refined(run, how, vectors, conditions)


def remove_states(path: Path) -> None:
    """Delete what only an interrupted training would need."""
    for state in path.parent.glob(f"{path.name.removesuffix('.vectors.safetensors')}.*.state.safetensors"):
        state.unlink()
