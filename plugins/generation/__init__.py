"""Image generation: parts of a diffusers UNet, on digits, torchvision data, folders or arrays; the metric is FID."""

from pdiff import call, derive_seed, hookimpl, isolated_seed, resolve_device

REQUIRES = ("diffusers", "torchmetrics", "torchvision")


@hookimpl
def build(cfg, folder):
    """Build network, data and what measures from `cfg.task` (`build_task`); the feature network is kept in `folder`."""
    from pdiff_plugins.generation.task import build_task

    given = {"seed": cfg.seed, "device": resolve_device(cfg.device), "folder": folder}
    return call(build_task, cfg.task, "task", **given)


@hookimpl
def collect(task, names, cfg, state, branch):
    """Train, freeze everything but the selection, fine-tune it, a snapshot per step (`cfg.collect`)."""
    from functools import partial

    from pdiff_plugins.generation.denoising import objective
    from pdiff_plugins.generation.network import build_network
    from pdiff_plugins.images.collection import snapshots

    def network(number):
        with isolated_seed(derive_seed(cfg.seed, "network", number)):
            return build_network(cfg.task.network, cfg.task.get("noise"), task.splits["train"])

    given = {"task": task, "names": names, "seed": cfg.seed, "network": network}
    denoise = partial(objective, task.model.noise_schedule)
    return call(snapshots, cfg.collect, "collect", objective=denoise, state=state, branch=branch, **given)


@hookimpl
def branches(cfg):
    """Say that the branches of every seed need not wait for each other."""
    from pdiff_plugins.images.collection import roots

    return roots(cfg.collect.get("seeds", 1), cfg.collect.get("branches", 1))


@hookimpl
def evaluate(task, candidates, split):
    """Measure the FID of the images that each candidate makes of the same noise; its signature is their features."""
    from pdiff_plugins.generation.evaluation import evaluations

    bench = task.splits["seen" if split == "train" else split]  # `train` is what the network is trained on
    return evaluations(task.model, candidates, bench, split)


@hookimpl
def draw(task, picks, folder):
    """Draw real images, those of the best candidates, and what many candidates make of one noise."""
    from pdiff_plugins.generation.pictures import draw_pictures

    return draw_pictures(task.model, task.splits["test"], picks, folder)


@hookimpl
def inputs(task, split):
    """Yield the images of each batch at time steps that are drawn from the seed alone, and these steps."""
    from pdiff_plugins.generation.denoising import noisy_batches

    bench = task.splits["seen" if split == "train" else split]
    return noisy_batches(task.model.noise_schedule, bench.split, bench.seed)
