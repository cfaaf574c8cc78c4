"""The hooks that a plugin for mmdet and one for mmseg have in common."""

from collections.abc import Callable

from pdiff import call, hookimpl, resolve_device


def looks_at_training_data(cfg) -> bool:
    """Say whether a run evaluates on training data, or takes batches of them for something else."""
    return bool(cfg.evaluate.train or cfg.evaluate.recalibrate or cfg.fit.canonical != "none")


def collection_hooks(library: str) -> tuple[Callable, ...]:
    """Return the hooks `collect`, `branches`, `finetune` and `losses` of a plugin.

    Args:
        library: `mmdet` or `mmseg`.
    """

    @hookimpl
    def collect(task, names, cfg, state, folder, branch):
        """Train with mmengine's Runner, freeze everything but the selection, fine-tune it (`cfg.collect`).

        With `conditions`: fine-tune it for each of them, many at once.
        """
        from pdiff_plugins.openmmlab.collection import snapshots
        from pdiff_plugins.openmmlab.libraries import LIBRARIES
        from pdiff_plugins.openmmlab.losses import check_draws
        from pdiff_plugins.openmmlab.many import snapshots_of_many

        if "conditions" not in cfg.collect and cfg.fit.get("decoder"):
            check_draws(cfg.collect)  # the fit, which needs the losses of networks, comes behind the training
        given = {"task": task, "names": names, "seed": cfg.seed, "device": resolve_device(cfg.device)}
        given |= {"library": LIBRARIES[library], "state": state, "folder": folder, "branch": branch}
        return call(snapshots_of_many if "conditions" in cfg.collect else snapshots, cfg.collect, "collect", **given)

    @hookimpl
    def branches(cfg):
        """Say that the branches, or the blocks of networks, need not wait for each other."""
        from pdiff_plugins.openmmlab.collection import roots
        from pdiff_plugins.openmmlab.conditions import build_kind
        from pdiff_plugins.openmmlab.many import roots_of_many

        if "conditions" in cfg.collect:
            count = len(build_kind(cfg.collect.conditions, cfg.seed))
            return roots_of_many(count, *[cfg.collect[name] for name in ("together",) if name in cfg.collect])
        return roots(cfg.collect.get("branches", 1))

    @hookimpl
    def finetune(task, names, cfg, start, conditions, steps):
        """Fine-tune the selection for each condition, as the collection does."""
        from pdiff_plugins.openmmlab.many import finetuned

        return finetuned(task, names, cfg.seed, start, conditions, steps, cfg.collect.networks)

    @hookimpl
    def losses(task, cfg, params, conditions, step):
        """Return the loss of each of n networks on the training batch of a step; what they share is computed once."""
        from pdiff_plugins.openmmlab.losses import losses_of_networks

        return losses_of_networks(task, cfg.seed, cfg.collect, params, conditions, step)

    return collect, branches, finetune, losses
