"""A hypernetwork: from a condition to a latent, and by a decoder to a network, trained through the network's loss.

Ha et al., 2017, arXiv 1609.09106. It gives one network for a condition, where a diffusion draws many. With
`begin: base` nothing of the population counts but conditions and the scale of each tensor: the decoder begins as random
axes about what the networks of the collection began with. So one sees what the trained networks are worth to it.
"""

import json
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pdiff.engine.behaving import Behaving, Decoding, Losses, OfRows, check_finite
from pdiff.engine.behaving_settings import behaving_settings
from pdiff.engine.conditioning import Conditioning
from pdiff.engine.decoder import LinearDecoder, load_part, load_trained, trained
from pdiff.engine.intake import check_conditions
from pdiff.engine.settings import check_training
from pdiff.engine.whitening import Whitening
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.seeding import derive_seed, isolated_seed
from pdiff.runtime.storage import read_json, write_json, write_tensors
from pdiff.weights.vectors import Vectors, row_slices

if TYPE_CHECKING:
    from pdiff.engine.parameter_diffusion import ParameterDiffusion

NAME = "hypernet"
KEYS = ("settings", "seed", "condition", "history")  # of a description
ARCHITECTURE = ("width", "depth")
OWN = (*ARCHITECTURE, "begin")  # settings that are none of the training
NOT_FITTED = "hypernet: is not fitted yet. Call fit(engine, conditions, losses), or Hypernet.load(folder, engine)."


class FromConditions(nn.Module):
    """Conditions to white latents by an MLP, and to vectors; at first to the one vector of the mean latent.

    Args:
        condition: C.
        whitening: of latents; it stays as it is.
        decoding: from latents to vectors.
        width: of a layer.
        depth: layers before the last.
    """

    def __init__(self, condition: int, whitening: Whitening, decoding: Decoding, width: int, depth: int):
        super().__init__()
        self.conditioning = Conditioning(condition)
        widths = [condition, *[width] * depth]
        layers = [part for sizes in pairwise(widths) for part in (nn.Linear(*sizes), nn.SiLU())]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], len(whitening.mean)))
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.zeros_(self.layers[-1].bias)
        self.whitening, self.decoding = whitening, decoding

    def forward(self, conditions: Tensor) -> Tensor:
        """Return vectors `(B, P)` for conditions `(B, C)`."""
        return self.decoding(self.whitening.inverse(self.layers(self.conditioning(conditions))))

    def kept(self) -> dict[str, nn.Module]:
        """Return the parts of which everything is kept; of the decoder it is what is trained."""
        return {"conditioning": self.conditioning, "whitening": self.whitening, "layers": self.layers}


class Hypernet:
    """Predicts a parameter vector for a condition.

    Args:
        settings: what is to differ from the defaults of `fit.hypernet`.
        seed: of weights and order.

    Attributes:
        condition: C; 0 before the fit.
        history: the loss of every step.

    Before `fit` or `load`, what needs the fitted parts raises a `PdiffError`.
    """

    made: FromConditions  # only where it is fitted

    def __init__(self, settings: Mapping[str, Any] | None = None, seed: int = 0):
        self.settings, self.seed = behaving_settings(NAME, settings or {}), seed
        self.condition, self.history = 0, []

    def fit(
        self,
        engine: "ParameterDiffusion",
        conditions: Tensor | np.ndarray,
        losses: Losses,
        folder: Path | None = None,
        vectors: Vectors | None = None,
        start: Tensor | None = None,
        learnt: Tensor | None = None,
    ) -> "Hypernet":
        """Train it through the losses of the networks that it gives for seen conditions, with a decoder of its own.

        Args:
            engine: a fitted one, whose decoder and latents it begins with; it stays as it is.
            conditions: `(N, C)`, in any units.
            losses: of vectors, the numbers of their conditions, on the CPU, and a step.
            folder: for log and state of the training, which goes on from there.
            vectors: `(M, P)`, in whose mean latent it begins, and in whose latents' units it learns; default: the
                engine's `whitening`.
            start: the vector `(P,)` that every condition gives at first, with `begin: base` alone.
            learnt: which coordinates `(P,)` the losses can tell of; the random axes leave the others at the start, as
                no gradient would ever mend them. Default: all.

        Raises:
            PdiffError: the engine is not fitted, a setting cannot be, the conditions are no finite numbers `(N, C)`,
                there is a start without `begin: base`, or none with it, or the training diverges.
        """
        from pdiff.engine.training import train

        check_training("fit.hypernet", engine.device, self.settings)
        given = check_conditions("fit.conditions", conditions, len(conditions)).to(engine.device)
        if (self.settings["begin"] == "base") != (start is not None):
            got = f"got begin {self.settings['begin']!r} and {'no start' if start is None else 'a start'}"
            raise PdiffError(f"hypernet.fit: {got}, expected a start with 'base' alone. Give it, or leave it out.")
        self.build(engine, given.shape[1])
        self.made.conditioning.fit(given)
        if start is not None:
            self.begin_at(start.to(engine.device), learnt)
        elif vectors is not None:
            self.made.whitening = Whitening(engine.autoencoder.latent).to(engine.device)
            self.made.whitening.fit(torch.as_tensor(engine.encode(vectors)).to(engine.device))
        processes.copy_from_main(self.made)
        settings = {key: value for key, value in self.settings.items() if key not in OWN}
        settings |= {"arithmetic": "vectors", "device": engine.device}
        begun = None if start is None else start.tolist()
        identity = json.dumps([self.settings, engine.config, given.tolist(), engine.history.get("decoder"), begun])
        numbers, seed = torch.arange(len(given)), derive_seed(self.seed, NAME)
        objective = Behaving(OfRows(self.made, given), losses)
        with isolated_seed(derive_seed(seed, "train")):
            self.history = train(objective, numbers, NAME, folder, seed, identity, **settings)
        check_finite("fit.hypernet", self.history)
        self.made.eval()
        return self

    @torch.no_grad()
    def begin_at(self, start: Tensor, learnt: Tensor | None) -> None:
        """Let the decoder, of random axes, begin at a vector `(P,)`, from which these move what is learnt `(P,)`."""
        decoding = self.made.decoding
        decoding.decoder.bias.copy_(decoding.scaling(start[None])[0])
        if learnt is not None:
            decoding.decoder.weight.mul_(learnt.to(start.device))

    def build(self, engine: "ParameterDiffusion", condition: int) -> None:
        """Make the parts, not yet fitted, for conditions of C numbers."""
        self.condition, decoding = condition, engine.decoding()
        architecture = {key: self.settings[key] for key in ARCHITECTURE}
        with isolated_seed(derive_seed(self.seed, NAME, "weights")):
            whitening = Whitening(engine.autoencoder.latent)
            if self.settings["begin"] == "base":
                axes = torch.randn(engine.autoencoder.latent, engine.layout.size) / engine.autoencoder.latent**0.5
                decoding.decoder = LinearDecoder(axes, torch.zeros(engine.layout.size))
            else:
                whitening.load_state_dict(engine.whitening.state_dict())
            self.made = FromConditions(condition, whitening, decoding, **architecture).to(engine.device).eval()

    def check_fitted(self) -> None:
        """Raise a `PdiffError` before the fit."""
        if not self.condition:
            raise PdiffError(NOT_FITTED)

    @torch.no_grad()
    def predict(self, conditions: Tensor | np.ndarray) -> Tensor:
        """Return a vector for each condition `(W, C)`, in the units of the fit: `(W, P)`, on the CPU.

        Raises:
            PdiffError: it is not fitted, or the conditions are of another width, or not finite.
        """
        self.check_fitted()
        given = check_conditions("predict.conditions", conditions, len(conditions), self.condition)
        vectors = torch.empty(len(given), len(self.made.decoding.scaling.mean))
        device = self.made.conditioning.mean.device
        for place in row_slices(vectors.shape):
            vectors[place] = self.made(given[place].to(device)).cpu()
        return vectors

    def save(self, folder: Path) -> None:
        """Write it to `folder` as safetensors and JSON, the JSON last."""
        self.check_fitted()
        for name, part in self.made.kept().items():
            write_tensors(Path(folder) / f"{name}.safetensors", part.state_dict())
        write_tensors(Path(folder) / "decoder.safetensors", trained(self.made.decoding.decoder))
        description = {key: getattr(self, key) for key in KEYS}
        write_json(Path(folder) / f"{NAME}.json", description)

    @classmethod
    def load(cls, folder: Path, engine: "ParameterDiffusion", device: str = "cpu") -> "Hypernet":
        """Return what `save` wrote to `folder`.

        Args:
            folder: where it is.
            engine: that it was fitted with.
            device: that it predicts on.

        Raises:
            PdiffError: a file is missing, corrupt, or of another engine.
        """
        folder = Path(folder)
        if not (folder / f"{NAME}.json").is_file():
            raise PdiffError(f"{folder}: has no {NAME}.json. Give a folder that `Hypernet.save` wrote, or fit again.")
        description = read_json(folder / f"{NAME}.json")
        missing = [key for key in KEYS if not isinstance(description, dict) or key not in description]
        if missing:
            raise PdiffError(f"{folder / f'{NAME}.json'}: lacks {missing[0]!r}. Fit again.")
        net = cls(description["settings"], description["seed"])
        net.history = description["history"]
        net.build(engine, description["condition"])
        fitting = f"{NAME}.json, or the engine"
        for name, part in net.made.kept().items():
            load_part(folder / f"{name}.safetensors", part.load_state_dict, fitting)
        decoder = net.made.decoding.decoder
        load_part(folder / "decoder.safetensors", partial(load_trained, decoder), fitting)
        net.made.to(device)
        return net
