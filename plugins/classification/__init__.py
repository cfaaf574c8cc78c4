"""Image classification: any timm network or a mini network, on digits, torchvision data, folders or arrays."""

from pdiff import (
    Metric,
    PdiffError,
    Task,
    call,
    check_positive,
    derive_seed,
    hookimpl,
    isolated_seed,
    resolve_device,
)

REQUIRES = ("timm", "torchmetrics", "torchvision")


@hookimpl
def build(cfg):
    """Build network and data from `cfg.task` (`network`, `data`, `eval_batch`)."""
    return call(build_task, cfg.task, "task", seed=cfg.seed, device=resolve_device(cfg.device))


def build_task(
    seed,
    device,
    network: dict,
    data: dict,
    eval_batch: int = 250,
    conditions: dict | None = None,
    eval_networks: int = 1,
    uncertainty: dict | None = None,
) -> Task:
    """Return the classification task; primary metric: accuracy (top 1), a fraction.

    Args:
        seed: of the initial weights and, by default, of the splits.
        device: of network and batches.
        network: `type` and settings of a network.
        data: `type` and settings of a data set.
        eval_batch: images per batch of the evaluation.
        conditions: `type` and settings of what the networks are made for; null: all for the same.
        eval_networks: candidates that are evaluated at once; more than 1 are whole networks without running statistics.
            With conditions the number is found without it.
        uncertainty: `bins` and `outside`: how well networks know what they do not know; null: not measured.
    """
    from pdiff_plugins.classification.conditions import build_kind, conditional
    from pdiff_plugins.classification.networks import build_network, head_names
    from pdiff_plugins.classification.uncertainty import UNCERTAINTY, build_uncertainty
    from pdiff_plugins.images.data import build_data

    check_positive("task", eval_networks=eval_networks)
    splits = build_data(data, eval_batch, device, seed)
    for split in splits.values():
        split.eval_networks = eval_networks
    check_classes(splits["train"])
    given = network.get("pretrained") or network.get("checkpoint")
    facts = {"select": "images that the weights which the network came with may have seen"} if given else {}
    if splits["train"].names:
        facts["classes"] = list(splits["train"].names)
    chance, under = 1 / splits["train"].classes, splits
    if conditions is not None:
        kind = build_kind(conditions, seed)
        chance, under = kind.chance(splits["train"].classes), conditional(splits, kind)
        facts |= kind.facts(under["train"].table)
    with isolated_seed(derive_seed(seed, "network", 0)):
        model = build_network(network, splits["train"]).to(device)
    check_size(model, splits["train"])
    if uncertainty is not None:
        given = {"splits": splits, "data": data, "seed": seed, "conditions": conditions}
        under = {**under, UNCERTAINTY: call(build_uncertainty, uncertainty, "task.uncertainty", **given)}
    metric = Metric("accuracy", chance=chance, best=1.0)
    return Task(model=model, splits=under, metric=metric, head=head_names(model), facts=facts)


def check_classes(split) -> None:
    """Raise a `PdiffError` unless a split has two classes or more."""
    if split.classes < 2:
        found = f"the single class {split.names[0]!r}" if split.names else "a single class"
        raise PdiffError(f"task.data: got {found}, expected two or more. Give a folder, or labels, for each class.")


def check_size(model, split) -> None:
    """Raise a `PdiffError` unless the network takes images of the split's size."""
    import torch

    try:
        with torch.no_grad():
            model.eval()(split.resized(split.pixels(slice(0, 1))))
    except torch.OutOfMemoryError:
        raise
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        line = f"task.data.size: the network cannot take images of {split.size} pixels ({reason}). Change the size."
        raise PdiffError(line) from None


@hookimpl
def collect(task, names, cfg, state, branch):
    """Train, freeze everything but the selection, fine-tune it, a snapshot per step (`cfg.collect`).

    With conditions: train a network for each of them, many at once. With `collect.networks` and no conditions: train
    networks independently of each other, many at once.
    """
    from pdiff_plugins.classification.many import snapshots_of_many
    from pdiff_plugins.classification.networks import build_network
    from pdiff_plugins.classification.zoo import snapshots_of_zoo
    from pdiff_plugins.images.classify import classify
    from pdiff_plugins.images.collection import snapshots

    conditions = cfg.task.get("conditions")
    data = task.splits["train"].data if conditions else task.splits["train"]

    def network(number):
        with isolated_seed(derive_seed(cfg.seed, "network", number)):
            return build_network(cfg.task.network, data)

    given = {"task": task, "names": names, "seed": cfg.seed, "network": network, "state": state, "branch": branch}
    if conditions:
        return call(snapshots_of_many, cfg.collect, "collect", **given)
    if "networks" in cfg.collect:
        return call(snapshots_of_zoo, cfg.collect, "collect", **given)
    return call(snapshots, cfg.collect, "collect", objective=classify, **given)


@hookimpl
def branches(cfg):
    """Say that the branches of every seed, or the blocks of networks, need not wait for each other."""
    from pdiff_plugins.classification.conditions import build_kind
    from pdiff_plugins.classification.many import roots_of_many
    from pdiff_plugins.classification.zoo import blocks_of_zoo
    from pdiff_plugins.images.collection import roots

    if cfg.task.get("conditions"):
        settings = {name: cfg.collect[name] for name in ("inits", "start", "together") if name in cfg.collect}
        return roots_of_many(len(build_kind(cfg.task.conditions, cfg.seed)), **settings)
    if "networks" in cfg.collect:
        settings = {name: cfg.collect[name] for name in ("seeds", "together") if name in cfg.collect}
        return range(len(call(blocks_of_zoo, settings, "collect")))
    return roots(cfg.collect.get("seeds", 1), cfg.collect.get("branches", 1))


@hookimpl
def finetune(task, cfg, start, conditions, steps):
    """Train a network for each condition as the collection does, many at once, from one beginning, in fewer steps."""
    from pdiff_plugins.classification.many import finetuned_networks

    settings = {name: cfg.collect[name] for name in ("networks", "inits", "together") if name in cfg.collect}
    given = {"task": task, "seed": cfg.seed, "start": start, "conditions": conditions, "steps": steps}
    return call(finetuned_networks, settings, "collect", **given)


@hookimpl
def losses(task, cfg, params, conditions, step):
    """Return the cross-entropy of each of n networks on the training batch of a step; many in one pass."""
    from pdiff_plugins.classification.training_loss import losses_of_networks

    return losses_of_networks(task, cfg.seed, cfg.collect, params, conditions, step)


@hookimpl
def evaluate(task, candidates, split, ensembles):
    """Measure the accuracy of each candidate, and of the average of the class probabilities of each ensemble.

    The signature is which samples are wrong. What has logits that are not finite is dead: its largest logit may be any,
    and its accuracy is no number.
    """
    from pdiff_plugins.classification.conditions import ConditionalSplit
    from pdiff_plugins.classification.evaluation import conditional_results, plain_results

    conditional = isinstance(task.splits[split], ConditionalSplit)
    yield from (conditional_results if conditional else plain_results)(task, candidates, split, ensembles)


@hookimpl
def inputs(task, split):
    """Yield the images of each batch; under conditions that change images, one condition after another."""
    from pdiff_plugins.classification.conditions import ConditionalSplit

    data = task.splits[split]
    if isinstance(data, ConditionalSplit):
        return data.inputs_in_turn()
    return ((images,) for _, images, _ in data.batches())
