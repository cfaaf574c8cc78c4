"""The task of image generation: network, data, and what each split's candidates are measured with."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from pdiff_plugins.generation.class_conditions import check_counts_of_sets, check_images, class_names, table_of
from pdiff_plugins.generation.denoising import held_out
from pdiff_plugins.generation.evaluation import Bench, fid_of_noise
from pdiff_plugins.generation.features import FeatureNetwork, build_features
from pdiff_plugins.generation.network import build_network
from pdiff_plugins.generation.pipeline import export_pipeline
from pdiff_plugins.generation.sampling import Sampler, check_network, check_sampler
from pdiff_plugins.generation.signature import similarity
from pdiff_plugins.images.class_sets import members
from pdiff_plugins.images.data import Split, build_splits

from pdiff import (
    Conditions,
    Metric,
    PdiffError,
    Task,
    call,
    check_keys,
    check_positive,
    derive_seed,
    generator,
    isolated_seed,
)

MEASURED = ("select", "test")


def build_task(
    seed: int,
    device: torch.device,
    folder: Path,
    network: dict,
    data: dict,
    sampler: dict,
    images: dict,
    features: dict,
    noise: dict | None = None,
    loss_images: int = 256,
    signature_images: int = 100,
    groups: int = 20,
    eval_batch: int = 100,
    conditions: dict | None = None,
) -> Task:
    """Return the generation task; primary metric: FID, lower is better.

    Args:
        seed: of initial weights, of the noise that images are made of, of the feature network, and by default of the
            splits.
        device: of the networks.
        folder: where a feature network that is trained is kept.
        network: `type` and settings of a network.
        data: `type` and settings of a data set.
        sampler: how images are made of noise.
        images: `{select: 100, test: 300}`, how many images a candidate makes for each split.
        features: `type` and settings of the feature network, which is part of the metric.
        noise: arguments of diffusers' DDPMScheduler, what the network is trained for; null where a pipeline brings its
            own.
        loss_images: at most so many real images of a split enter the denoising loss.
        signature_images: at most so many images of a candidate enter its signature.
        groups: of images, for the jackknife that takes the bias from the FID and tells its noise; 0, for many features,
            leaves the FID as it is, and its noise and chance unknown.
        eval_batch: images per batch.
        conditions: the section `collect.conditions`, where there is one: every candidate is for a set of classes.
    """
    check_positive("task", loss_images=loss_images, signature_images=signature_images, eval_batch=eval_batch)
    if groups < 0 or groups == 1:
        raise PdiffError(f"task.groups: got {groups}, expected 0, or an integer from 2 on. Take 20.")
    check_keys(images, MEASURED, "task.images")
    check_positive("task.images", **{split: images.get(split) for split in MEASURED})
    splits = build_splits(data, eval_batch, device, seed)
    for split in splits.values():  # to [-1, 1], as diffusers' pipelines expect it
        split.mean, split.std = split.mean + 0.5, split.std * 0.5
    table, names = None, class_names(splits["train"])
    if conditions is not None:
        table = table_of(conditions, splits["train"], seed)
        check_images(members(names, table), splits)
    with isolated_seed(derive_seed(seed, "network", 0)):
        model = build_network(network, noise, splits["train"]).to(device)
    draw = call(Sampler, sampler, "task.sampler", noise_schedule=model.noise_schedule, seed=seed)
    check_network(model, splits["train"])
    check_sampler(draw)
    judge = build_features(features, splits, seed, folder)
    given = {"model": model, "sampler": draw, "features": judge, "loss_images": loss_images}
    given |= {"signature_images": signature_images, "groups": groups, "seed": seed}
    given |= {"classes": None if table is None else names}
    measured = {name: bench(name, splits[name], images=images[name], **given) for name in MEASURED}
    for name in MEASURED if table is not None else ():
        check_counts_of_sets(members(names, table), splits[name], name, judge.size, groups)
    seen = bench("train", splits["train"].first(len(splits["select"])), images=images["select"], **given)
    facts = {"feature_network": judge.facts(), "features": judge.description()}
    if network["type"] == "pretrained" or network.get("checkpoint"):
        facts["select"] = "images that the weights which the network came with may have seen"
    if groups:
        facts["FID"] = f"extrapolated to infinitely many images by the jackknife over {groups} groups"
    if table is not None:
        facts |= {"classes": names, "real images": "those of the classes that a network is for, and no other"}
    facts |= {"images": f"{images['select']} on select, {images['test']} on test", "sampler": draw.description}
    return Task(
        model=model,
        splits={"train": splits["train"], "seen": seen, **measured},
        metric=Metric("FID", False, chance=fid_of_noise(measured["test"], table) if groups else None, best=0.0),
        head=("conv_out",),
        similarity=similarity,
        export=partial(export_pipeline, model.noise_schedule),
        facts=facts,
        for_condition=None if table is None else partial(check_set, names),
        conditions=table,
    )


def check_set(names: Sequence[str], model: torch.nn.Module, condition: Mapping[str, float]) -> None:
    """Raise a `PdiffError` unless a condition is a set of some of these classes; the network stays as it is."""
    members(names, Conditions.of([condition]))


def bench(
    name: str,
    split: Split,
    model: torch.nn.Module,
    sampler: Sampler,
    features: FeatureNetwork,
    images: int,
    loss_images: int,
    signature_images: int,
    groups: int,
    seed: int,
    classes: Sequence[str] | None,
) -> Bench:
    """Return what the candidates of one split are measured with; the noise is drawn here, once."""
    shape = (images, *split.resized(split.pixels(slice(0, 1))).shape[1:])
    noise = torch.randn(shape, generator=generator(seed, "noise", name)).to(split.device)
    own = {"count": loss_images, "seed": derive_seed(seed, "loss", name)}
    hold = partial(held_out, model.noise_schedule, **own)
    drawn = derive_seed(seed, "kid", name)
    return Bench(name, split, noise, sampler, features, hold, signature_images, groups, drawn, classes)
