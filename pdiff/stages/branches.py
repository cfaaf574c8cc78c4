"""A collection in branches that do not wait for each other: several processes share them, one does them in turn.

Each branch is a population of its own below `population/branches` until all are there; so a run may go on with another
number of processes than it began with.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pdiff.runtime import processes
from pdiff.runtime.errors import PdiffError
from pdiff.stages.snapshots import check_length, collect_branch, folder_of, read_state, recorded
from pdiff.weights.population import Population

if TYPE_CHECKING:
    from pdiff.run.run import Run


def roots_of(run: "Run") -> list[int]:
    """Return for each branch of the collection the first branch that begins with the same trained network."""
    if not run.has_hook("branches"):
        return [0]
    networks = list(run.hook.branches(cfg=run.config))
    if not networks:
        raise PdiffError(f"plugin {run.name}: branches returned nothing, expected a number for each branch.")
    taken = {name for implementation in run.hook.collect.get_hookimpls() for name in implementation.argnames}
    if len(networks) > 1 and not {"state", "branch"} <= taken:
        raise PdiffError(f"plugin {run.name}: has the hook branches, so its collect must take branch and state.")
    return [networks.index(network) for network in networks]


def collect_branches(run: "Run", roots: Sequence[int]) -> None:
    """Write `population/` from the branches, of which each process does its share.

    Args:
        run: the run.
        roots: for each branch the one that trains the network they begin with; that comes first.
    """
    if processes.size() > 1:
        begin_roots(run, roots)
    own = range(len(roots))[processes.own(len(roots))]
    first = {branch: root for branch, root in enumerate(roots) if root != branch}
    shares = processes.gather([collect_branch(run, branch, first.get(branch)) for branch in own])
    processes.on_main(lambda: join_branches(run, [written for share in shares for written in share]))


def begin_roots(run: "Run", roots: Sequence[int]) -> None:
    """Train the networks that branches begin with, up to the first snapshot, while those with nothing to train wait."""
    firsts = sorted(set(roots))
    for branch in firsts[processes.own(len(firsts))]:
        if read_state(folder_of(run, branch))[1] == 0:
            for population in recorded(run, branch):
                if len(population) > 0:
                    break
    processes.gather(None)


def join_branches(run: "Run", lengths: Sequence[int]) -> None:
    """Write the population that the branches make up, in their order, from as many vectors of each as were written."""
    whole = Population.create(folder_of(run, None), run.layout)
    for branch, written in enumerate(lengths):
        own = Population.open(folder_of(run, branch))
        check_length(own, written)
        whole.extend(own)
