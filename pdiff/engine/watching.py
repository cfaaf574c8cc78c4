"""A tenth of the rows is left out of a training and watched: it ends once the loss on them falls no further.

Whole groups are left out: a row whose neighbours are trained on says little about one that is new.
"""

import copy
import math
from typing import Any

import numpy as np
import torch
from mmengine.dist import broadcast
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from torch import Tensor

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.seeding import generator

SHARE = 0.1  # of the groups
LOOK = 20  # steps between two looks


def left_out(groups: Any, seed: int) -> Tensor:
    """Return which of N rows are watched `(N,)`: those of a tenth of the groups, at least one and not all.

    Args:
        groups: what belongs together, a label for each row `(N,)`.
        seed: of the draw.

    Raises:
        PdiffError: all rows are of one group.
    """
    names, numbers = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise PdiffError(
            "engine.generator_training.patience: got vectors of one training alone, expected two at least: none can be "
            "watched whose neighbours are not trained on. Set it to 0."
        )
    count = min(max(round(SHARE * len(names)), 1), len(names) - 1)
    chosen = torch.randperm(len(names), generator=generator(seed, "watched"))[:count]
    return torch.isin(torch.from_numpy(numbers), chosen)


class Watch(Hook):
    """Looks every `LOOK` steps, and at the last, at the loss on rows that are left out; ends the training in time.

    Args:
        rows: that are watched `(W, ...)`, on the device of the training.
        patience: looks without a new best at the loss on a tenth of the vectors, that of whole trainings, which is
            left out; then the training ends, and the best weights are the result. 0: all steps on all vectors.

    Attributes:
        losses: what each look has found.
        best: the weights of the best look; None before it.
        best_look: its number, from 1 on; 0 before it.
    """

    priority = "VERY_LOW"  # after the moving average, before the state is written

    def __init__(self, rows: Tensor, patience: int):
        self.rows, self.patience = rows, patience
        self.losses: list[float] = []
        self.best: dict[str, Tensor] | None = None
        self.best_look = 0

    def before_train(self, runner) -> None:
        """Find what the result of the training is: the moving average of the weights, where there is one."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        averages = [hook.ema_model.module for hook in runner.hooks if isinstance(hook, EMAHook)]
        self.model = averages[0] if averages else model

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Look, keep the weights where they are the best so far, and end where none have been for long."""
        if not self.every_n_train_iters(runner, LOOK) and runner.iter + 1 < runner.max_iters:
            return
        self.model.eval()  # the loop sets it back
        loss = self.model.watched_loss(self.rows)
        broadcast(loss)  # so that all processes end at the same step
        found = loss.item()  # the one wait for a GPU
        if found < min(self.losses, default=math.inf):
            self.best, self.best_look = copy.deepcopy(self.model.state_dict()), len(self.losses) + 1
        self.losses.append(found)
        runner.train_loop.stop_training = self.over

    @property
    def over(self) -> bool:
        """Whether the training has ended."""
        return len(self.losses) - self.best_look >= self.patience

    def words(self, steps: int) -> str:
        """Return where a training of at most so many steps ended, and which step was the best."""
        done, best = (min(LOOK * look, steps) for look in (len(self.losses), self.best_look))
        return f"ended at step {done} of {steps}; the weights are those of step {best}"

    def state_dict(self) -> dict[str, Any]:
        """Return what a training that goes on has to know."""
        return {"losses": self.losses, "best": self.best, "best_look": self.best_look}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.losses, self.best, self.best_look = (state[key] for key in ("losses", "best", "best_look"))
