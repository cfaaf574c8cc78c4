"""The checks in their order, and what they find out about a plugin."""

import inspect
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from pdiff.run.config import load_config
from pdiff.runtime.errors import PdiffError, known
from pdiff.runtime.exact import exact
from pdiff.runtime.seeding import current, resolve_device
from pdiff.task.plugins import import_plugin, plugin_name
from pdiff.testing.finding import FAILED, NOT_APPLICABLE, PASSED, Finding, NotApplicable, Rule
from pdiff.testing.simulated_cuda import simulated_cuda
from pdiff.testing.specimen import Specimen

COLLECTED, EVALUATED = ("collection",), ("collection", "result")
TABLE = (
    Rule("hooks", "all", "pdiff.testing.collecting:check_hooks", ()),
    Rule("build", "build", "pdiff.testing.collecting:check_build", ("hooks",)),
    Rule("selection", "select_params", "pdiff.testing.collecting:check_selection", ("build",)),
    Rule("layout", "select_params", "pdiff.testing.collecting:check_layout", ("selection",)),
    Rule("collection", "collect", "pdiff.testing.collecting:check_collection", ("layout",)),
    Rule("rest", "collect", "pdiff.testing.collecting:check_rest", COLLECTED),
    Rule("resume", "collect", "pdiff.testing.collecting:check_resume", COLLECTED),
    Rule("loading", "load_params", "pdiff.testing.collecting:check_loading", COLLECTED),
    Rule("result", "evaluate", "pdiff.testing.evaluating:check_result", COLLECTED),
    Rule("repeatable", "evaluate", "pdiff.testing.evaluating:check_repeatable", EVALUATED),
    Rule("order", "evaluate", "pdiff.testing.evaluating:check_order", EVALUATED),
    Rule("alone", "evaluate", "pdiff.testing.evaluating:check_alone", EVALUATED),
    Rule("undisturbed", "evaluate", "pdiff.testing.evaluating:check_undisturbed", EVALUATED),
    Rule("dead", "evaluate", "pdiff.testing.evaluating:check_dead", EVALUATED),
    Rule("direction", "evaluate", "pdiff.testing.evaluating:check_direction", EVALUATED),
    Rule("similarity", "build", "pdiff.testing.evaluating:check_similarity", EVALUATED),
    Rule("ensemble", "ensemble", "pdiff.testing.evaluating:check_ensemble", EVALUATED),
    Rule("drawing", "draw", "pdiff.testing.evaluating:check_drawing", EVALUATED),
    Rule("finetuning", "finetune", "pdiff.testing.finetuning:check_finetuning", COLLECTED),
    Rule("loss", "loss", "pdiff.testing.behaving:check_loss", COLLECTED),
    Rule("inputs", "inputs", "pdiff.testing.units:check_inputs", ("build",)),
    Rule("symmetries", "symmetries", "pdiff.testing.units:check_symmetries", EVALUATED),
)
# By words of torch's errors about devices.
ADVICE = {
    "Expected all tensors to be on the same device": "Move what meets the network there with .to(device).",
    "indices should be either on cpu": "Move the indexed tensor to the device of the indices, or index on the CPU.",
    "device type for generator": "Make the generator on the device of what it fills, or draw on the CPU and move it.",
    "device type tensor to numpy": "Call .cpu() before it becomes an array.",
}
CHECKS = {check.name: check for check in TABLE}


class Conformance:
    """A plugin, checked one rule after another.

    A few snapshots are collected and evaluated; the collection is then stopped, and neither engine nor report is
    made. What a check needs is made once and serves all.

    Args:
        plugin: name or path.
        folder: where the runs write; empty.
        config: the YAML file; default: the plugin's embedded config.
        options: settings over the config, by dotted keys.
        simulate_cuda: check it on a simulated GPU, whatever device the config names.

    Raises:
        PdiffError: there is no such plugin, it cannot be imported, or the config cannot be resolved.
    """

    def __init__(
        self,
        plugin: str,
        folder: Path,
        config: str | None = None,
        options: Mapping[str, Any] | None = None,
        simulate_cuda: bool = False,
    ):
        self.plugin, self.simulate_cuda = plugin, simulate_cuda
        device = {"device": "cuda"} if simulate_cuda else {}
        self.specimen = Specimen(load_config(plugin, config, {}, {**(options or {}), **device}), folder)
        self.findings: dict[str, Finding] = {}

    def check(self, name: str) -> Finding:
        """Return what a check of `CHECKS` finds, those that it needs included."""
        if name not in CHECKS:
            raise PdiffError(f"check: got {name!r}. {known(name, CHECKS)}")
        if name not in self.findings:
            self.findings[name] = self._find(CHECKS[name])
        return self.findings[name]

    def _find(self, check: Rule) -> Finding:
        for need in check.needs:
            if self.check(need).state != PASSED:
                return Finding(check.name, check.hook, NOT_APPLICABLE, f"needs {need}, which did not pass")
        try:
            with simulated_cuda() if self.simulate_cuda else nullcontext(), self.place():
                return Finding(check.name, check.hook, PASSED, resolve_name(check.function)(self.specimen))
        except NotApplicable as reason:
            return Finding(check.name, check.hook, NOT_APPLICABLE, str(reason))
        except PdiffError as error:
            return Finding(check.name, check.hook, FAILED, str(error))
        except Exception as error:  # whatever the plugin's own code raises
            return Finding(check.name, check.hook, FAILED, self._words(check.hook, error))

    @contextmanager
    def place(self) -> Iterator[None]:
        """Let the device of the config be the current one, which repeats what it computes, as in a run."""
        device = resolve_device(self.specimen.config.device)
        with current(device), exact(device):
            yield

    def _words(self, hook: str, error: Exception) -> str:
        """Return one line for what the plugin's own code raised: which hook, what, and at which of its lines."""
        own = Path(inspect.getfile(import_plugin(self.plugin))).parent
        frames = traceback.extract_tb(error.__traceback__)
        last = [frame for frame in frames if own in Path(frame.filename).parents] or frames
        where = f"{Path(last[-1].filename).name}, line {last[-1].lineno}"
        what = " ".join(f"{type(error).__name__}: {error}".split())
        return f"plugin {plugin_name(self.plugin)}: {hook} raised {what} ({where}). {advice(what)}"


def advice(what: str) -> str:
    """Return what to do about an error of the plugin's own code."""
    return next((todo for words, todo in ADVICE.items() if words in what), "Mend it there.")


def check_plugin(
    plugin: str,
    config: str | None = None,
    options: Mapping[str, Any] | None = None,
    simulate_cuda: bool = False,
) -> list[Finding]:
    """Return what every check finds, in order; the runs are made in a temporary folder.

    Args:
        plugin: name or path.
        config: the YAML file; default: the plugin's embedded config.
        options: settings over the config, by dotted keys.
        simulate_cuda: check it on a simulated GPU, which a machine without one has too.
    """
    with tempfile.TemporaryDirectory(prefix="pdiff-check-") as folder, ExitStack() as held:
        if simulate_cuda:
            held.enter_context(simulated_cuda())
        conformance = Conformance(plugin, Path(folder), config, options, simulate_cuda)
        return [conformance.check(name) for name in CHECKS]
