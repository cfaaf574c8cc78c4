"""The hooks that a plugin for mmdet and one for mmseg have in common."""

from collections.abc import Callable

from pdiff import call, hookimpl, resolve_device


def looks_at_training_data(cfg) -> bool:
    """Say whether a run evaluates on training data, or takes batches of them for something else."""
    return bool(cfg.evaluate.train or cfg.evaluate.recalibrate or cfg.fit.canonical != "none")


def collection_hooks(library: str) -> tuple[Callable, Callable]:
    """Return the hooks `collect` and `branches` of a plugin.

    Args:
        library: `mmdet` or `mmseg`.
    """

    @hookimpl
    def collect(task, names, cfg, state, folder, branch):
        """Train with mmengine's Runner, freeze everything but the selection, fine-tune it (`cfg.collect`)."""
        from pdiff_plugins.openmmlab.collection import snapshots
        from pdiff_plugins.openmmlab.libraries import LIBRARIES

        given = {"task": task, "names": names, "seed": cfg.seed, "device": resolve_device(cfg.device)}
        given |= {"library": LIBRARIES[library], "state": state, "folder": folder, "branch": branch}
        return call(snapshots, cfg.collect, "collect", **given)

    @hookimpl
    def branches(cfg):
        """Say that the branches need not wait for each other."""
        from pdiff_plugins.openmmlab.collection import roots

        return roots(cfg.collect.get("branches", 1))

    return collect, branches
