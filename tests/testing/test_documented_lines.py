"""The lines that docs/plugins.md shows for a broken hook are those that a user gets."""

import re
from pathlib import Path

import pytest

from pdiff.testing import CHECKS, Conformance

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text(encoding="utf-8")
MOONS = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL).group(1)
LINES = dict(re.findall(r"^### `(\w+)\(.*?```text\n(plugin moons: .*?)\n```", PAGE, re.MULTILINE | re.DOTALL))
HOOK = "\n\n@hookimpl\ndef {}:\n    {}\n"
# For each hook a check, and how the plugin of the page is broken.
BROKEN = {
    "build": ("build", lambda text: text.replace("    return Task(", "    Task(")),
    "select_params": ("selection", lambda text: text + HOOK.format("select_params()", 'return ["2.wieght"]')),
    "collect": ("collection", lambda text: text.replace("for name in names}", "for name in tensors}")),
    "branches": ("hooks", lambda text: text + HOOK.format("branches()", "return [0, 0]")),
    "load_params": ("loading", lambda text: text + HOOK.format("load_params()", "pass")),
    "evaluate": ("result", lambda text: text.replace("range(len(candidates))", "range(len(candidates) - 1)")),
    "ensemble": ("ensemble", lambda text: text + HOOK.format("ensemble()", "pass")),
    "draw": ("drawing", lambda text: "import pdiff\n" + text + HOOK.format(
        "draw()", 'return [pdiff.Picture("moons.png", "a title", "a caption")]'
    )),
    "inputs": ("inputs", lambda text: text + HOOK.format("inputs(task, split)", "return iter(task.splits[split])")),
    "finetune": ("finetuning", lambda text: text.replace('{"step": step})', '{"step": step}, condition={"moon": step})')
        + HOOK.format("finetune(start)", "return [start]")),
    "loss": ("loss", lambda text: text + HOOK.format("loss()", "pass")),
    "losses": ("loss", lambda text: text + HOOK.format("losses()", "return torch.zeros(2)")),
    "symmetries": ("symmetries", lambda text: text + HOOK.format("symmetries()", "pass")),
}  # fmt: skip


def conformance(folder: Path, text: str) -> Conformance:
    """Write the plugin of the page, or what became of it, and return it ready for its checks."""
    (folder / "moons.py").write_text(text)
    (folder / "moons.yaml").write_text("select: head\n")
    return Conformance(str(folder / "moons.py"), folder / "runs")


def test_every_hook_of_the_page_has_a_line():
    assert set(LINES) == set(BROKEN)


@pytest.mark.parametrize("hook", BROKEN)
def test_documented_line_is_what_a_user_gets(tmp_path, hook):
    check, broken = BROKEN[hook]
    finding = conformance(tmp_path, broken(MOONS)).check(check)
    assert (finding.state, finding.line) == ("failed", LINES[hook])


def test_smallest_plugin_keeps_the_rules(tmp_path):
    plugin = conformance(tmp_path, MOONS)
    assert [plugin.check(name).line for name in CHECKS if plugin.check(name).state == "failed"] == []


@pytest.mark.parametrize("hook", ["loss", "losses"])
def test_documented_loss_keeps_the_rule(tmp_path, hook):
    code = re.search(rf"^### `{hook}\(.*?```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL).group(1)
    finding = conformance(tmp_path, f"import pdiff\n{MOONS}\n\n{code}").check("loss")
    assert finding.state == "passed", finding.line


def test_every_check_has_a_row():
    assert re.findall(r"^\| `(\w+)` \| \w+ \|", PAGE, re.MULTILINE) == list(CHECKS)
