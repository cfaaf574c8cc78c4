"""What is swept: a config, the keys that are varied with their values, and seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pdiff.run.stage import STAGES
from pdiff.runtime.errors import PdiffError

COLLECTED = STAGES["collect"].sections  # what a collection depends on


@dataclass(frozen=True)
class Sweep:
    """One sweep, as the command line or a file says it.

    Attributes:
        plugin: name or path; None where the config names it.
        config: its file; None for the plugin's own.
        options: dotted keys and their values, over the config in every run.
        vary: ablations, each by itself; the values of the keys of one are combined. One without keys is the config as
            it is.
        seeds: of every setting; none: the config's own.
        only: sources that are evaluated beside those that every comparison needs.
        collect_again: each seed, and each setting that asks for it, has a collection of its own; else there is one.
    """

    plugin: str | None
    config: str | None
    options: Mapping[str, Any]
    vary: Sequence[Mapping[str, Sequence[Any]]]
    seeds: Sequence[int]
    only: Sequence[str]
    collect_again: bool

    @property
    def keys(self) -> list[str]:
        """The dotted keys that are varied, in their order."""
        return list(dict.fromkeys(key for ablation in self.vary for key in ablation))

    @property
    def seed_key(self) -> str:
        """The key that the seeds are values of."""
        return "seed" if self.collect_again else "fit.seed"

    @property
    def seeds_of(self) -> str:
        """What is drawn anew with each seed, in a sentence."""
        if self.collect_again:
            return "Seeds are of everything: each has a collection of its own."
        return "Seeds are of fitting and drawing alone: all runs share one population."

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as plain values, by attribute."""
        return asdict(self)

    def check(self) -> None:
        """Raise a `PdiffError` for a sweep that cannot be, before any config is looked at."""
        if not self.plugin and not self.config:
            raise PdiffError("sweep: got none of --plugin, --config and --sweep. Give one.")
        if not self.keys and not self.seeds:
            raise PdiffError("sweep: got nothing to vary. Give --vary KEY=a,b, or --seeds 0,1,2.")
        if len(set(self.seeds)) < len(self.seeds):
            raise PdiffError(f"--seeds: got {list(self.seeds)}, expected each once. Leave one out.")
        if self.only and "evaluate.only" in [*self.options, *self.keys]:
            raise PdiffError("--only: got it and the option evaluate.only, which it is. Leave one out.")
        if self.seeds and self.seed_key in self.options:
            raise PdiffError(f"--seeds: got them and the option {self.seed_key}, which they set. Leave one out.")
        for ablation in self.vary:
            for key, values in ablation.items():
                self.check_key(key, values)

    def check_key(self, key: str, values: Sequence[Any]) -> None:
        """Raise a `PdiffError` for a key that cannot be varied here, or values that are none or not each once."""
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise PdiffError(f"--vary: got {key} with {list(values)}, expected values, each once. Mend it.")
        if self.seeds and key == self.seed_key:
            raise PdiffError(f"--vary: got {key}, which --seeds sets. Leave one out.")
        if not self.collect_again and key.partition(".")[0] in COLLECTED:
            line = f"--vary: got {key}, which changes the collection, of which there is one"
            raise PdiffError(f"{line}. Give --collect-again, or leave it out.")
