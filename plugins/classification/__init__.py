"""Image classification: any timm network or a mini network, on digits, torchvision data, folders or arrays."""

from pdiff import Evaluation, Metric, PdiffError, Replay, Task, hookimpl
from pdiff.progress import progress
from pdiff.registry import call
from pdiff.seeding import derive_seed, isolated_seed, resolve_device

REQUIRES = ("timm", "torchvision")


@hookimpl
def build(cfg):
    """Build network and data from `cfg.task` (`network`, `data`, `eval_batch`)."""
    return call(build_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def build_task(seed, device, network: dict, data: dict, eval_batch: int = 250) -> Task:
    """Return the classification task; primary metric: accuracy (top 1), a fraction."""
    from pdiff_plugins.classification.data import build_data
    from pdiff_plugins.classification.networks import build_network, head_names

    splits = build_data(data, eval_batch, device)
    with isolated_seed(derive_seed(seed, "network", 0)):
        model = build_network(network, splits["train"]).to(device)
    check_size(model, splits["train"])
    return Task(model=model, splits=splits, metric=Metric("accuracy"), head=head_names(model))


def check_size(model, split) -> None:
    """Raise a `PdiffError` unless the network takes images of the split's size."""
    import torch

    try:
        with torch.no_grad():
            model.eval()(split.resized(split.pixels(slice(0, 1))))
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        line = f"task.data.size: the network cannot take images of {split.size} pixels ({reason}). Change the size."
        raise PdiffError(line) from None


@hookimpl
def collect(task, names, cfg, state):
    """Train, freeze everything but the selection, fine-tune it, a snapshot per step (`cfg.collect`)."""
    from pdiff_plugins.classification.finetune import snapshots
    from pdiff_plugins.classification.networks import build_network

    def network(number):
        with isolated_seed(derive_seed(cfg.seed, "network", number)):
            return build_network(cfg.task.network, task.splits["train"])

    return call(
        snapshots, cfg.collect, "collect", task=task, names=names, seed=cfg.seed, network=network, state=state
    )


@hookimpl
def plan(task, names, cfg):
    """Say how many steps the collection has, and do some of them."""
    from pdiff_plugins.classification.plan import collection_work

    return call(collection_work, cfg.collect, "collect", task=task, names=names, seed=cfg.seed)


@hookimpl
def evaluate(task, candidates, split):
    """Measure the accuracy of each candidate; its signature is which samples it gets wrong."""
    import torch

    data = task.splits[split]
    replay = Replay(task.model.eval(), candidates)
    correct = torch.empty(len(candidates), len(data), dtype=torch.bool)
    with progress(f"evaluate on {split}", len(candidates) * data.num_batches()) as advance:
        for rows, images, labels in data.batches():
            for index, logits in enumerate(replay(images)):
                correct[index, rows] = (logits.argmax(1) == labels).cpu()
                advance()
    for row in correct:
        yield Evaluation(metric=row.double().mean().item(), signature=~row, scores=row)
