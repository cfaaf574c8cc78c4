"""Image generation: parts of a diffusers UNet, on digits, torchvision data, folders or arrays; the metric is FID."""

from pdiff import call, derive_seed, hookimpl, isolated_seed, resolve_device

REQUIRES = ("diffusers", "torchmetrics", "torchvision")


@hookimpl
def build(cfg, folder):
    """Build network, data and what measures from `cfg.task` (`build_task`); the feature network is kept in `folder`."""
    from pdiff_plugins.generation.task import build_task

    given = {"seed": cfg.seed, "device": resolve_device(cfg.device), "folder": folder}
    return call(build_task, cfg.task, "task", conditions=cfg.collect.get("conditions"), **given)


@hookimpl
def collect(task, names, cfg, state, branch):
    """Train, freeze everything but the selection, fine-tune it, a snapshot per step (`cfg.collect`).

    With `collect.conditions`: fine-tune it for every set of classes, a snapshot for each.
    """
    from functools import partial

    from pdiff_plugins.generation.denoising import objective
    from pdiff_plugins.generation.many import snapshots_of_sets
    from pdiff_plugins.generation.network import build_network
    from pdiff_plugins.images.collection import snapshots

    def network(number):
        with isolated_seed(derive_seed(cfg.seed, "network", number)):
            return build_network(cfg.task.network, cfg.task.get("noise"), task.splits["train"])

    given = {"task": task, "names": names, "seed": cfg.seed, "network": network, "state": state, "branch": branch}
    if "conditions" in cfg.collect:
        return call(snapshots_of_sets, cfg.collect, "collect", **given)
    denoise = partial(objective, task.model.noise_schedule)
    return call(snapshots, cfg.collect, "collect", objective=denoise, **given)


@hookimpl
def finetune(task, names, cfg, start, conditions, steps):
    """Fine-tune the selection for each set of classes, as `collect` does, in fewer steps."""
    from pdiff_plugins.generation.many import finetuned

    settings = {name: cfg.collect[name] for name in ("networks", "together") if name in cfg.collect}
    given = {"task": task, "names": names, "seed": cfg.seed, "start": start, "conditions": conditions, "steps": steps}
    return call(finetuned, settings, "collect", **given)


@hookimpl
def losses(task, cfg, params, conditions, step):
    """Return the denoising loss of each of n networks on the training batch of a step, which is drawn once."""
    from pdiff_plugins.generation.training_loss import losses_of_networks

    return losses_of_networks(task, cfg.seed, cfg.collect, params, conditions, step)


@hookimpl
def branches(cfg):
    """Say that the branches of every seed, or the blocks of networks, need not wait for each other."""
    from pdiff_plugins.generation.class_conditions import number_of_sets
    from pdiff_plugins.generation.many import TOGETHER
    from pdiff_plugins.images.blocks import blocks_of
    from pdiff_plugins.images.collection import roots

    if "conditions" in cfg.collect:
        return [0] * len(blocks_of(number_of_sets(cfg.collect.conditions), cfg.collect.get("together", TOGETHER)))

    return roots(cfg.collect.get("seeds", 1), cfg.collect.get("branches", 1))


@hookimpl
def evaluate(task, candidates, split):
    """Measure the FID of the images that each candidate makes of the same noise; its signature is their features.

    Under a condition: the FID to the real images of its classes alone.
    """
    from pdiff_plugins.generation.evaluation import evaluations

    bench = task.splits["seen" if split == "train" else split]  # `train` is what the network is trained on
    return evaluations(task.model, candidates, bench, split)


@hookimpl
def draw(task, picks, folder):
    """Draw real images, those of the best candidates, and what many candidates make of one noise.

    Where each is for a set of classes: what the candidates for several sets make of one noise.
    """
    from pdiff_plugins.generation.conditional_pictures import draw_conditional_pictures
    from pdiff_plugins.generation.pictures import draw_pictures

    bench = task.splits["test"]
    conditional = bench.classes is not None and all(group.conditions is not None for group in picks.values())
    return (draw_conditional_pictures if conditional else draw_pictures)(task.model, bench, picks, folder)


@hookimpl
def inputs(task, split):
    """Yield the images of each batch at time steps that are drawn from the seed alone, and these steps."""
    from pdiff_plugins.generation.denoising import noisy_batches

    bench = task.splits["seen" if split == "train" else split]
    return noisy_batches(task.model.noise_schedule, bench.split, bench.seed)
