"""Image classification: any timm network or a mini network, on digits, torchvision data, folders or arrays."""

from pdiff import (
    Evaluation,
    Metric,
    PdiffError,
    Replay,
    Task,
    call,
    derive_seed,
    hookimpl,
    isolated_seed,
    progress,
    resolve_device,
)

REQUIRES = ("timm", "torchvision")


@hookimpl
def build(cfg):
    """Build network and data from `cfg.task` (`network`, `data`, `eval_batch`)."""
    return call(build_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def build_task(seed, device, network: dict, data: dict, eval_batch: int = 250) -> Task:
    """Return the classification task; primary metric: accuracy (top 1), a fraction.

    Args:
        seed: of the initial weights and, by default, of the splits.
        device: of network and batches.
        network: `type` and settings of a network.
        data: `type` and settings of a data set.
        eval_batch: images per batch of the evaluation.
    """
    from pdiff_plugins.classification.networks import build_network, head_names
    from pdiff_plugins.images.data import build_data

    splits = build_data(data, eval_batch, device, seed)
    with isolated_seed(derive_seed(seed, "network", 0)):
        model = build_network(network, splits["train"]).to(device)
    check_size(model, splits["train"])
    metric = Metric("accuracy", chance=1 / splits["train"].classes, best=1.0)
    given = network.get("pretrained") or network.get("checkpoint")
    facts = {"select": "images that the weights which the network came with may have seen"} if given else {}
    return Task(model=model, splits=splits, metric=metric, head=head_names(model), facts=facts)


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
def collect(task, names, cfg, state, branch):
    """Train, freeze everything but the selection, fine-tune it, a snapshot per step (`cfg.collect`)."""
    from pdiff_plugins.classification.networks import build_network
    from pdiff_plugins.images.classify import classify
    from pdiff_plugins.images.collection import snapshots

    def network(number):
        with isolated_seed(derive_seed(cfg.seed, "network", number)):
            return build_network(cfg.task.network, task.splits["train"])

    given = {"task": task, "names": names, "seed": cfg.seed, "network": network, "objective": classify}
    return call(snapshots, cfg.collect, "collect", state=state, branch=branch, **given)


@hookimpl
def branches(cfg):
    """Say that the branches of every seed need not wait for each other."""
    from pdiff_plugins.images.collection import roots

    return roots(cfg.collect.get("seeds", 1), cfg.collect.get("branches", 1))


@hookimpl
def evaluate(task, candidates, split):
    """Measure the accuracy of each candidate; its signature is which samples it gets wrong.

    A candidate with logits that are not finite is dead: its largest logit may be any, and its accuracy is no number.
    """
    import torch

    data = task.splits[split]
    replay = Replay(task.model.eval(), candidates)
    correct = torch.empty(len(candidates), len(data), dtype=torch.bool)
    finite = torch.ones(len(candidates), dtype=torch.bool)
    with progress(f"evaluate on {split}", len(candidates) * data.num_batches()) as advance:
        for rows, images, labels in data.batches():
            for index, logits in enumerate(replay(images)):
                correct[index, rows] = (logits.argmax(1) == labels).cpu()
                finite[index] &= logits.isfinite().all().cpu()
                advance()
    for row, alive in zip(correct, finite, strict=True):
        yield measured(row, alive, task.metric)


def measured(correct, finite, metric):
    """Return the evaluation of one candidate.

    Args:
        correct: which samples it gets right `(S,)`.
        finite: whether all its logits are; without it, it is dead and gets nothing right.
        metric: the task's.
    """
    correct = correct & finite
    value = correct.double().mean().item() if finite else metric.worst
    return Evaluation(metric=value, signature=~correct, scores=correct)


@hookimpl
def ensemble(task, candidates, split):
    """Measure the accuracy of the average of the candidates' class probabilities."""
    import torch

    data = task.splits[split]
    replay = Replay(task.model.eval(), candidates)
    correct, finite = torch.empty(len(data), dtype=torch.bool), torch.tensor(True)
    for rows, images, labels in data.batches():
        probabilities = 0
        for logits in replay(images):
            probabilities = probabilities + logits.softmax(1)
            finite &= logits.isfinite().all().cpu()
        correct[rows] = (probabilities.argmax(1) == labels).cpu()
    return measured(correct, finite, task.metric)
