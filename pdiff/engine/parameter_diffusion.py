"""The engine: codec (scaling and autoencoder) and latent diffusion, as one object that knows only vectors."""

import copy
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pdiff.engine.autoencoder import Autoencoder
from pdiff.engine.behaving import Decoding, Losses, check_finite
from pdiff.engine.behaving_settings import behaving_settings
from pdiff.engine.conditioning import Conditioning
from pdiff.engine.drawing import end
from pdiff.engine.generator import Generator, check_drawing, check_generator, check_watching
from pdiff.engine.intake import (
    as_it_came,
    as_vectors,
    check_conditions,
    check_groups,
    check_vectors,
    check_wanted,
    check_width,
    finite,
    on_device,
)
from pdiff.engine.objectives import Reconstruction
from pdiff.engine.registries import AUTOENCODERS, GENERATORS, SCALINGS
from pdiff.engine.samplers import build_sampler
from pdiff.engine.saved import read_description, read_parts, read_tuned, write_engine
from pdiff.engine.scaling import Scaled, Scaling, dominated
from pdiff.engine.settings import check_codec_training, check_training, engine_config
from pdiff.engine.tuning import tuning
from pdiff.engine.whitening import Whitening
from pdiff.engine.width import WIDTHS, why_narrow
from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError, check_positive
from pdiff.runtime.progress import logger
from pdiff.runtime.registry import build, find
from pdiff.runtime.seeding import derive_seed, generator, isolated_seed, resolve_device
from pdiff.runtime.storage import read_json
from pdiff.weights.layout import Layout
from pdiff.weights.vectors import Rows, Vectors, deviations, parts, relative_width, row_slices

NOT_FITTED = "engine: is not fitted yet. Call fit(vectors), or ParameterDiffusion.load(folder)."
ENOUGH = 10  # samples, to tell how wide they are spread


class ParameterDiffusion:
    """Learns the distribution of parameter vectors and draws new ones (arXiv 2402.13144).

    A codec turns vectors into latents and back; a generator (`engine.generator`) learns the latents: diffusion or
    another one.

    Args:
        config: an engine section: `preset` (`fast`, `paper` or `tokens`) and whatever is to differ from it.
        seed: of weights, order, and noise of the fit.
        device: `auto`, `cpu`, `cuda`, ...

    Attributes:
        config: the complete section.
        layout: the tensors inside a vector; None before the fit.
        condition: C, how many numbers a vector is conditioned on; 0 for none.
        process: between latents and noise, of a generator that denoises; None of one that draws in one pass.
        history: the loss of every step, by what was trained: `autoencoder`, and `denoiser` or whatever else the
            generator trains; with `generator_training.patience` as `watched` the loss of every look at what was left
            out; after `tune_decoder` as `decoder`.
        tuned: the decoder that `tune_decoder` made; None without.
        width: mean standard deviation per coordinate of the vectors that it was fitted to.

    Vectors and latents go in as torch tensors or numpy arrays of any floating type, and come out, float32, on the CPU,
    as what they came in as; what is drawn is a tensor. Before `fit` or `load`, what needs the fitted parts raises a
    `PdiffError`.

    Raises:
        PdiffError: a key, a type or the device is unknown.

    Example:
        >>> engine = ParameterDiffusion().fit(vectors)    # (N, P), float32
        >>> new = engine.sample(200, seed=0)              # (200, P)
    """

    scaling: Scaling
    autoencoder: Autoencoder
    whitening: Whitening
    generator: Generator
    conditioning: Conditioning  # only where there are conditions

    def __init__(self, config: Mapping[str, Any] | None = None, *, seed: int = 0, device: str = "cpu"):
        self.config = engine_config(config or {})
        self.seed = seed
        self.device = resolve_device(device)
        check_generator(self.config["generator"]["type"], self.kind)
        self.process = self.kind.process_of(self.config)
        self.check_drawing(self.config["sampler"])  # a mistake in it is better told before the fit
        self.history: dict[str, list[float]] = {}
        self.layout: Layout | None = None
        self.condition = 0
        self.width: float | None = None
        self.tuned: nn.Module | None = None

    @property
    def kind(self) -> type[Generator]:
        """The class of the generator."""
        return find(GENERATORS, self.config["generator"]["type"], "engine.generator")

    def check_drawing(
        self, sampler: Mapping[str, Any] | None, guidance: float = 1.0, where: str = "engine.sampler"
    ) -> None:
        """Raise a `PdiffError` for a sampler, or a weight of the condition, that the generator cannot draw with.

        Args:
            sampler: the section that says how to draw; None for none.
            guidance: the weight of the condition.
            where: the sampler's place in the config, for the error line.
        """
        check_drawing(self.config["generator"]["type"], self.kind.guided, self.process, sampler, guidance, where)
        if self.process:
            build_sampler(sampler, self.process, where)

    def fit(
        self,
        vectors: Tensor | np.ndarray | Rows,
        layout: Layout | None = None,
        folder: Path | None = None,
        conditions: Tensor | np.ndarray | None = None,
        groups: Sequence[Any] | Tensor | np.ndarray | None = None,
    ) -> "ParameterDiffusion":
        """Fit codec and diffusion to a population.

        Args:
            vectors: `(N, P)`, at least two; on the CPU they may be memory-mapped, and are read a few at a time.
            layout: the tensors inside a vector; default: one tensor.
            folder: where the state of the trainings is kept while they last; a fit that was interrupted goes on
                from there and ends with the same bytes, on a CPU.
            conditions: `(N, C)`, what each vector was made for, in any units; default: none.
            groups: `(N,)`, which vectors belong together, those of one training say: with `generator_training.patience`
                whole groups are left out and watched; default: each vector is one.

        Raises:
            PdiffError: fewer than two vectors, a NaN, another length than the layout's, or conditions or groups of
                another shape.
        """
        vectors = on_device(vectors, self.device)
        if not isinstance(layout, Layout | None):
            raise PdiffError(
                f"fit.layout: got {type(layout).__name__}, expected a pdiff.Layout. Leave it out, or give one."
            )
        layout = layout or Layout.of({"vector": torch.empty(vectors.shape[-1:])})
        check_vectors(vectors, layout)
        if conditions is not None:
            conditions = check_conditions("fit.conditions", conditions, len(vectors))
        watched = self._watched(check_groups("fit.groups", groups, len(vectors)))
        self.prepare(layout, condition=0 if conditions is None else conditions.shape[1])
        if self.process and (words := self.process.words_for_end()):
            logger.warning(words)
        if self.autoencoder.latent >= len(vectors):
            logger.warning(
                "engine: a latent of %d for %d vectors, which lie in at most %d dimensions: the rest of it carries "
                "nothing", self.autoencoder.latent, len(vectors), len(vectors) - 1,
            )  # fmt: skip
        with isolated_seed(derive_seed(self.seed, "fit")):
            self.fit_codec(vectors, folder)
            self.fit_diffusion(self.encode(vectors).to(self.device), folder, conditions, watched)
        return self

    def _watched(self, groups: np.ndarray) -> Tensor | None:
        """Return which vectors `(N,)` the denoiser's training leaves out, of labels `(N,)`; None without `patience`."""
        from pdiff.engine.watching import left_out

        return left_out(groups, self.seed) if self.config["generator_training"]["patience"] else None

    def prepare(self, layout: Layout, device: torch.device | None = None, condition: int = 0) -> None:
        """Make the parts for a fit to vectors of `layout`.

        Args:
            layout: the tensors inside a vector.
            device: of the parts; default: the engine's. The device `meta` has no memory: to check settings and count.
            condition: C, how many numbers a vector is conditioned on; 0 for none.

        Raises:
            PdiffError: a setting cannot be; what would be used last is looked at too.
        """
        for name in ("autoencoder_training", "generator_training"):
            check_training(f"engine.{name}", self.device, self.config[name])
        patience = self.config["generator_training"]["patience"]
        check_watching(self.config["generator"]["type"], self.kind.watchable, patience)
        self.build(layout, device, condition)
        check_codec_training(self.config, any(True for _ in self.autoencoder.parameters()))

    def build(self, layout: Layout, device: torch.device | None = None, condition: int = 0) -> None:
        """Make the parts, not yet fitted, for vectors of `layout`; see `prepare`."""
        self.layout, self.condition, self.tuned, device = layout, condition, None, device or self.device
        with isolated_seed(derive_seed(self.seed, "weights")), torch.device("meta" if device.type == "meta" else "cpu"):
            self.scaling = build(SCALINGS, self.config["scaling"], "engine.scaling", size=layout.size)
            offered = {"size": layout.size, "layout": layout}
            self.autoencoder = build(AUTOENCODERS, self.config["autoencoder"], "engine.autoencoder", offered)
            self.whitening = Whitening(self.autoencoder.latent, self.config["whiten"])
            # Where there are conditions, the generator must take them; where there are none, it need not.
            must, may = ({"condition": condition}, {}) if condition else ({}, {"condition": 0})
            may |= {"size": self.autoencoder.latent, "process": self.process, "config": self.config}
            self.generator = build(GENERATORS, self.config["generator"], "engine.generator", may, **must)
            if condition:
                self.conditioning = Conditioning(condition)
        for part in self.modules().values():
            part.to(device).eval()

    def modules(self) -> dict[str, nn.Module]:
        """Return the modules by name; raise a `PdiffError` before the fit."""
        if self.layout is None:
            raise PdiffError(NOT_FITTED)
        found = {"scaling": self.scaling, "autoencoder": self.autoencoder, "whitening": self.whitening}
        found |= {self.generator.part: self.generator.weights}
        return found | ({"conditioning": self.conditioning} if self.condition else {})

    def fit_codec(self, vectors: Tensor | Rows, folder: Path | None) -> None:
        """Fit scaling and autoencoder to `(N, P)`, and keep how widely these are spread."""
        deviation = deviations(vectors)
        self.width = deviation.mean().item()
        rows = self.fit_closed_form(vectors)
        found = dominated(self.scaling, deviation, self.layout)
        if found:
            logger.warning("engine: %s, and the others are lost: set engine.scaling.type to per_coordinate", found)
        self.train_codec(*rows, folder)

    def fit_closed_form(self, vectors: Tensor | Rows) -> tuple[Autoencoder, Tensor | Scaled]:
        """Fit to `(N, P)` what is not trained; return what is, and the rows it is trained on."""
        self.scaling.fit(vectors, self.layout)
        scaled = Scaled(vectors, self.scaling)
        self.autoencoder.fit(scaled)
        processes.copy_from_main(self.scaling, self.autoencoder)  # no two machines compute quite the same
        return self.autoencoder.trainable(scaled)

    def train_codec(self, part: Autoencoder, rows: Tensor | Scaled, folder: Path | None) -> None:
        """Train what of the autoencoder has gradients, if anything."""
        noise = self.autoencoder.vector_noise, self.autoencoder.latent_noise
        objective = Reconstruction(part, *noise, self.seed)
        self._train("autoencoder", "autoencoder_training", objective, rows, folder)
        self.autoencoder.eval()

    def fit_diffusion(
        self,
        latents: Tensor,
        folder: Path | None,
        conditions: Tensor | np.ndarray | None = None,
        watched: Tensor | None = None,
    ) -> None:
        """Fit whitening and generator to latents `(N, L)`, and to the conditions `(N, C)` that these were made for.

        Those that are `watched` `(N,)` are left out of the generator's training.
        """
        self.whitening.fit(latents)
        processes.copy_from_main(self.whitening)
        rows = self.whitening(latents)
        if self.condition or conditions is not None:
            given = check_conditions("fit.conditions", conditions, len(rows), self.condition).to(rows.device)
            self.conditioning.fit(given)
            processes.copy_from_main(self.conditioning)
            rows = torch.cat([rows, self.conditioning(given)], 1)
        self.generator.fit(rows)
        processes.copy_from_main(self.generator)
        objective = self.generator.objective(self.seed, self.config["condition_dropout"])
        if objective is not None:
            self._train(self.generator.part, "generator_training", objective, rows, folder, watched)
        self.generator.eval()

    def _train(
        self,
        name: str,
        section: str,
        objective: nn.Module,
        rows: Tensor | Scaled,
        folder: Path | None,
        watched: Tensor | None = None,
    ) -> None:
        from pdiff.engine.training import train
        from pdiff.engine.watching import Watch

        settings, watch = dict(self.config[section]), None
        patience = settings.pop("patience", 0)
        if watched is not None:
            watched = watched.to(rows.device)
            rows, watch = rows[~watched], Watch(rows[watched], patience)
        apart = ("sampler",) if self.condition else ("sampler", "condition_dropout")
        identity = json.dumps({key: value for key, value in self.config.items() if key not in apart})
        seed = derive_seed(self.seed, name)
        self.history[name] = train(objective, rows, name, folder, seed, identity, watch, **settings)
        if watch:
            self.history["watched"] = processes.on_main(lambda: watch.losses)
            logger.info("fit %s: %s", name, watch.words(settings["steps"]))

    def tune_decoder(
        self,
        vectors: Tensor | np.ndarray | Rows,
        losses: Losses,
        settings: Mapping[str, Any] | None = None,
        folder: Path | None = None,
    ) -> "ParameterDiffusion":
        """Train a decoder through the losses of the networks that it gives back; `decode` takes it from then on.

        Encoder, latents and diffusion stay as they are.

        Args:
            vectors: `(N, P)`, those of the fit.
            losses: of vectors that are given back, with gradients, of their numbers among the N, on the CPU, and of a
                step.
            settings: what is to differ from the defaults of `fit.decoder`.
            folder: where the state of the training is kept; one that was interrupted goes on from there.

        Raises:
            PdiffError: the engine is not fitted, the vectors are of another length, or not finite, a setting cannot
                be, or the training diverges.
        """
        from pdiff.engine.training import checksum, train

        settings = behaving_settings("decoder", settings or {})
        check_training("fit.decoder", self.device, settings)
        latents, decoding = torch.as_tensor(self.encode(vectors)).to(self.device), self.decoding()
        seed = derive_seed(self.seed, "decoder")
        training = {**settings, "arithmetic": "vectors", "device": self.device}
        objective = tuning(decoding, latents, losses, training.pop("noise"), seed)
        identity, numbers = json.dumps([settings, checksum(latents)]), torch.arange(len(latents))
        with isolated_seed(derive_seed(seed, "train")):
            found = train(objective, numbers, "decoder", folder, seed, identity, **training)
        check_finite("fit.decoder", found)
        self.history["decoder"], self.tuned = found, decoding.decoder.eval()
        return self

    def decoding(self) -> Decoding:
        """Return what `decode` does as a module of its own, which can be trained."""
        self.check_fitted()
        decoder = self.autoencoder.trainable_decoder() if self.tuned is None else copy.deepcopy(self.tuned)
        return Decoding(decoder, copy.deepcopy(self.scaling))

    def check_fitted(self) -> None:
        """Raise a `PdiffError` before the fit."""
        if self.width is None:
            raise PdiffError(NOT_FITTED)

    @as_it_came
    @torch.no_grad()
    def encode(self, vectors: Vectors | np.ndarray, batch_size: int = 1000) -> Tensor | np.ndarray:
        """Return the latents `(M, L)` of vectors `(M, P)`.

        Raises:
            PdiffError: the engine is not fitted, or the vectors are of another length, or not finite.
        """
        self.check_fitted()
        check_width("encode", vectors, self.layout.size, "the layout's length")
        check_positive("encode", batch_size=batch_size)
        batches = finite("encode", (rows.to(self.device, torch.float32) for rows in parts(vectors, batch_size)))
        return torch.cat([self.autoencoder.encode(self.scaling(rows)).cpu() for rows in batches])

    @as_it_came
    def decode(self, latents: Tensor | np.ndarray, batch_size: int = 1000, tuned: bool = True) -> Tensor | np.ndarray:
        """Return the vectors `(M, P)` of latents `(M, L)`; by the tuned decoder where there is one, unless not `tuned`.

        Raises:
            PdiffError: the engine is not fitted, or the latents are of another length, or not finite.
        """
        self.check_fitted()
        check_width("decode", latents, self.autoencoder.latent, "that of a latent")
        check_positive("decode", batch_size=batch_size)
        vectors = torch.empty(len(latents), self.layout.size)
        start = 0
        for rows in self.decoded(latents, batch_size, tuned):
            vectors[start : start + len(rows)] = rows
            start += len(rows)
        return vectors

    @torch.no_grad()
    def decoded(self, latents: Tensor, batch_size: int = 1000, tuned: bool = True) -> Iterator[Tensor]:
        """Yield the vectors of latents `(M, L)`, on the CPU, a few at a time; see `decode`."""
        self.check_fitted()
        decoder = self.tuned if tuned and self.tuned is not None else self.autoencoder.decode
        places = row_slices((len(latents), self.layout.size), batch_size)
        for rows in finite("decode", (latents[place].to(self.device, torch.float32) for place in places)):
            yield self.scaling.inverse(decoder(rows)).cpu()

    def sample(
        self,
        n: int,
        seed: int = 0,
        batch_size: int = 1000,
        sampler: Mapping[str, Any] | None = None,
        conditions: Tensor | np.ndarray | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draw new vectors `(n, P)`, on the CPU, and tell in the log how wide they are spread.

        Args:
            n: how many.
            seed: of the noise; the same seed on the same CPU gives the same bytes.
            batch_size: how many are drawn and decoded at once.
            sampler: `type`, `steps`, ... of another sampler than the config's.
            conditions: `(n, C)`, what each is to be made for, in the units of the fit; default: for none in
                particular.
            guidance: how much more than without the condition it is to count: 1 as it was learnt, 0 not at all.

        Raises:
            PdiffError: the conditions do not fit the engine, or the result is not finite; the line says which part
                to look at.
        """
        latents = self.sample_latents(n, seed, batch_size, sampler, conditions, guidance)
        vectors = self.decode(latents, batch_size)
        if n >= ENOUGH:
            spread = self.spread(vectors)
            # What is drawn for a few conditions is right to be narrower than all that was fitted.
            expected = conditions is not None or WIDTHS[0] <= spread <= WIDTHS[1]
            level = logging.INFO if expected else logging.WARNING
            why = "" if expected else why_narrow(self.config, spread)
            logger.log(level, "sample: %d vectors with %.2f times the spread of the fitted ones%s", n, spread, why)
        return vectors

    @torch.no_grad()
    def spread(self, vectors: Vectors | np.ndarray) -> float:
        """Return the mean standard deviation per coordinate of vectors `(M, P)`, over that of the fitted ones.

        1: as wide; 0: a single point. A codec that shrinks, or a diffusion that did not converge, shows here.
        """
        self.check_fitted()
        own = as_vectors("spread", vectors, "vectors (M, P)")
        check_width("spread", own, self.layout.size, "the layout's length")
        return relative_width(deviations(own).mean().item(), self.width)

    @torch.no_grad()
    def sample_latents(
        self,
        n: int,
        seed: int = 0,
        batch_size: int = 1000,
        sampler: Mapping[str, Any] | None = None,
        conditions: Tensor | np.ndarray | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Draw new latents `(n, L)`, on the CPU: white ones of the generator, un-whitened; see `sample`.

        Raises:
            PdiffError: the conditions do not fit the engine, or the result is not finite; the line says which part
                to look at.
        """
        self.check_fitted()
        check_positive("sample", n=n, batch_size=batch_size)
        sizes = [min(batch_size, n - start) for start in range(0, n, batch_size)]
        ways = self._ways("sample", sizes, seed, sampler, conditions, guidance)
        latents = torch.cat([self.whitening.inverse(end(way)).cpu() for way in ways])
        if not torch.isfinite(latents).all():
            trained = any(True for _ in self.generator.parameters())
            todo = "Raise engine.generator_training.steps or lower its lr" if trained else self.generator.remedy
            raise PdiffError(f"sample: got vectors with NaN or infinity, so the generator did not converge. {todo}.")
        return latents

    @torch.no_grad()
    def sample_path(
        self,
        n: int,
        points: int,
        seed: int = 0,
        sampler: Mapping[str, Any] | None = None,
        conditions: Tensor | np.ndarray | None = None,
        guidance: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Draw new latents and return what the generator took them for on the way.

        Args:
            n: how many.
            points: evenly spaced steps of the sampler, its first and its last among them.
            seed: of the noise.
            sampler: of another sampler than the config's.
            conditions: `(n, C)`; see `sample`.
            guidance: see `sample`.

        Returns:
            `(points, n, L)`, on the CPU: at each point the estimate of the clean latents; and how many steps were done
            then `(points,)`.
        """
        self.check_fitted()
        check_positive("sample_path", n=n, points=points)
        (way,) = self._ways("sample_path", [n], seed, sampler, conditions, guidance)
        estimates = [estimate for _, estimate in way]
        steps = torch.linspace(1, len(estimates), points).round().long()
        return torch.stack([self.whitening.inverse(estimates[step - 1]).cpu() for step in steps]), steps

    def _ways(
        self,
        where: str,
        sizes: Sequence[int],
        seed: int,
        sampler: Mapping[str, Any] | None,
        conditions: Any,
        guidance: float,
    ) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
        """Yield, batch by batch of these sizes, the way to white latents; see `Generator.draw` and `sample`."""
        dropout, cfg = self.config["condition_dropout"], sampler or self.config["sampler"]
        self.check_drawing(cfg, guidance)
        wanted = check_wanted(where, conditions, sum(sizes), self.condition, guidance, dropout)
        scaled = None if wanted is None else self.conditioning(wanted.to(self.device)).split(sizes)
        rng = generator(seed, "sample", device=self.device)
        for number, size in enumerate(sizes):
            shape, c = torch.Size([size, self.autoencoder.latent]), None if scaled is None else scaled[number]
            yield self.generator.draw(shape, rng, c, guidance, cfg)

    def save(self, folder: Path) -> None:
        """Write the fitted engine to `folder` as safetensors and JSON."""
        self.check_fitted()
        description = {"seed": self.seed, "config": self.config, "width": self.width}
        description |= {"condition": self.condition} if self.condition else {}
        description |= {} if self.tuned is None else {"tuned": True}
        description |= {"layout": self.layout.to_json()}
        write_engine(Path(folder), self.modules(), self.tuned, self.history, description)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> "ParameterDiffusion":
        """Return the engine that `save` wrote to `folder`.

        Raises:
            PdiffError: a file is missing, corrupt, or of another engine.
        """
        folder = Path(folder)
        description = read_description(folder)
        engine = cls(description["config"], seed=description["seed"], device=device)
        engine.build(Layout.from_json(description["layout"]), condition=description.get("condition", 0))
        read_parts(folder, engine.modules())
        if description.get("tuned"):
            engine.tuned = engine.autoencoder.trainable_decoder().eval()
            read_tuned(folder, engine.tuned)
        engine.history = read_json(folder / "history.json")
        engine.width = description["width"]
        return engine
