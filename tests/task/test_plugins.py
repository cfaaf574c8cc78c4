"""Plugins by entry point and by path: the good ones work, and each bad one says why."""

import os
from pathlib import Path

import pytest

from pdiff.runtime.errors import PdiffError
from pdiff.task.plugins import default_config, hook_names, import_plugin, list_plugins, load_plugin, plugin_name

GOOD = """
import pdiff

@pdiff.hookimpl
def build(cfg):
    return "built"

@pdiff.hookimpl
def evaluate(task, candidates, split):
    return [task, split]
"""
OWN_SELECTION = GOOD + """
@pdiff.hookimpl
def select_params(task):
    return ["own"]
"""
BROKEN = {
    "imports_what_is_absent": (
        "import absent_package\n" + GOOD,
        r"cannot be imported \(ModuleNotFoundError: No module named 'absent_package'\)",
    ),
    "has_a_syntax_error": ("def", r"cannot be imported \(SyntaxError: "),
    "fails": ("1 / 0", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
    "exits": ("raise SystemExit(3)", r"cannot be imported \(SystemExit: 3\)"),
    "misspells_a_hook": (GOOD + "@pdiff.hookimpl\ndef evalute(task):\n    pass\n", r"unknown hook 'evalute' in plugin"),
    "takes_an_unknown_argument": (
        GOOD.replace("candidates, split", "candidates, splits"),
        r"hook 'evaluate' .*Argument\(s\) \{'splits'\} .* can not be found in the hookspec",
    ),
    "has_a_default_for_what_is_handed_over": (
        GOOD.replace("candidates, split", "candidates, split, ensembles=()"),
        r"evaluate has a default for 'ensembles', which then is never handed over\. Leave the default out,",
    ),
    "measures_ensembles_twice": (
        GOOD.replace("candidates, split", "candidates, split, ensembles")
        + "@pdiff.hookimpl\ndef ensemble(task, candidates):\n    pass\n",
        r"has the hook ensemble beside an evaluate that takes ensembles, .*Leave one of them out\.$",
    ),
    "forgets_the_decorator": (GOOD.replace("@pdiff.hookimpl\ndef build", "def build"), "lacks the hook build"),
    "lacks_evaluate": (GOOD.partition("@pdiff.hookimpl\ndef evaluate")[0], "lacks the hook evaluate"),
    "is_empty": ("", r"lacks the hook build\. .*@pdiff\.hookimpl"),
    "requires_what_is_absent": (
        'REQUIRES = ("torch", "absent_package")\n' + GOOD,
        r"needs the package absent_package\. Install it\.$",
    ),
    "requires_part_of_what_is_absent": ('REQUIRES = ("absent_package.ops",)\n' + GOOD, "needs the package absent"),
}


def write(folder, **modules: str) -> None:
    """Write Python files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution of one-file plugins, each under its name as entry point."""

    def install_plugins(**modules: str) -> None:
        write(tmp_path / "site", **{f"installed_{name}": text for name, text in modules.items()})
        facts = tmp_path / "site" / "mine-1.2.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.2\n")
        lines = [f"{name} = installed_{name}" for name in modules]
        (facts / "entry_points.txt").write_text("\n".join(["[pdiff.plugins]", *lines, ""]))
        monkeypatch.syspath_prepend(tmp_path / "site")

    return install_plugins


def rows() -> dict:
    """Return the plugin list by name."""
    return {row.name: row for row in list_plugins()}


def test_the_embedded_plugin_is_found_and_ready():
    row = rows()["classification"]
    assert row.state == "ready"
    assert row.hooks == ("branches", "build", "collect", "evaluate", "finetune", "inputs", "losses")
    assert row.origin.startswith("pdiff_plugins.classification (pdiff ")


def test_an_installed_plugin_is_listed_with_origin_hooks_and_state(install):
    install(good=OWN_SELECTION)
    row = rows()["good"]
    assert (row.origin, row.state) == ("installed_good (mine 1.2)", "ready")
    assert row.hooks == ("build", "evaluate", "select_params")


def test_an_installed_plugin_is_loaded_by_its_name(install):
    install(named=GOOD)
    assert load_plugin("named").hook.build(cfg={}, folder=None) == "built"


def test_the_list_says_why_a_plugin_cannot_be_used_and_keeps_the_others_ready(install):
    install(fine=GOOD, **{name: text for name, (text, _) in BROKEN.items()})
    found = rows()
    assert found["fine"].state == found["classification"].state == "ready"
    for name in BROKEN:
        assert found[name].state.startswith(f"plugin {name}: ")
        assert found[name].hooks == ()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_refused_in_one_line_with_the_reason(tmp_path, name):
    text, reason = BROKEN[name]
    write(tmp_path, **{name: text})
    with pytest.raises(PdiffError, match=rf"^plugin \S*{name}\S*: .*{reason}") as caught:
        load_plugin(str(tmp_path / f"{name}.py"))
    assert "\n" not in str(caught.value)


def test_an_unknown_plugin_is_refused_with_those_that_exist(install):
    install(other=GOOD)
    line = r"^plugin: got 'clasification'\. Did you mean 'classification'\? Known: .*other.* Or give the path"
    with pytest.raises(PdiffError, match=line):
        load_plugin("clasification")


@pytest.mark.parametrize("path", ["absent.py", "absent/", "empty/"])
def test_a_path_without_plugin_is_refused(tmp_path, path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PdiffError, match=r"^plugin: got '.*', expected a Python file or a folder with __init__\.py\.$"):
        load_plugin(f"{tmp_path}/{path}")


def test_a_plugin_takes_only_the_arguments_it_needs_and_gets_the_defaults_it_leaves_out(tmp_path):
    write(tmp_path, single=GOOD)
    manager = load_plugin(str(tmp_path / "single.py"))
    assert hook_names(manager, "single") == ["build", "evaluate"]
    assert len(manager.hook.select_params.get_hookimpls()) == 1
    assert len(manager.hook.load_params.get_hookimpls()) == 1
    assert not manager.hook.collect.get_hookimpls()
    assert manager.hook.evaluate(task=1, candidates=2, split="test", ensembles=()) == [1, "test"]


def test_a_hook_of_the_plugin_replaces_the_default(tmp_path):
    write(tmp_path, selects=OWN_SELECTION)
    manager = load_plugin(str(tmp_path / "selects.py"))
    assert manager.hook.select_params(task=None, cfg=None) == ["own"]
    assert len(manager.hook.select_params.get_hookimpls()) == 1


def test_a_folder_may_import_its_own_modules(tmp_path):
    write(tmp_path / "packaged", __init__="from .hooks import build, evaluate\n", hooks=GOOD)
    assert load_plugin(str(tmp_path / "packaged")).hook.build(cfg={}, folder=None) == "built"


def test_a_folder_may_import_its_own_modules_when_a_hook_runs(tmp_path):
    late = GOOD.replace('return "built"', "from .late import value\n    return value")
    write(tmp_path / "deferred", __init__=late, late="value = 3\n")
    assert load_plugin(str(tmp_path / "deferred")).hook.build(cfg={}, folder=None) == 3


def test_two_folders_of_one_name_keep_their_own_modules(tmp_path):
    late = GOOD.replace('return "built"', "from .late import value\n    return value")
    for value in (1, 2):
        write(tmp_path / str(value) / "twin", __init__=late, late=f"value = {value}\n")
    managers = [load_plugin(f"{tmp_path}/{value}/twin") for value in (1, 2)]
    assert [manager.hook.build(cfg={}, folder=None) for manager in managers] == [1, 2]


def test_the_folder_one_stands_in_is_a_plugin_by_its_own_name(tmp_path, monkeypatch):
    write(tmp_path / "standing", __init__=GOOD)
    monkeypatch.chdir(tmp_path / "standing")
    assert plugin_name(".") == "standing"
    assert load_plugin(".").hook.build(cfg={}, folder=None) == "built"


def test_a_folder_of_the_working_directory_does_not_hide_an_installed_plugin(tmp_path, monkeypatch):
    write(tmp_path / "classification", __init__="1 / 0")
    monkeypatch.chdir(tmp_path)
    assert import_plugin("classification").__name__ == "pdiff_plugins.classification"


@pytest.mark.parametrize("name", ["short", "some/where/short", "some/where/short/", "some/where/short.py", "short.py"])
def test_the_short_name_is_the_last_part_without_suffix(name):
    assert plugin_name(name) == "short"


def test_the_default_config_lies_in_the_folder_or_beside_the_file(tmp_path):
    write(tmp_path / "folder_with", __init__=GOOD)
    write(tmp_path, file_with=GOOD, file_without=GOOD)
    for path in ("folder_with/default.yaml", "file_with.yaml"):
        (tmp_path / path).write_text("seed: 1\n")
    assert default_config(str(tmp_path / "folder_with")) == tmp_path / "folder_with" / "default.yaml"
    assert default_config(str(tmp_path / "file_with.py")) == tmp_path / "file_with.yaml"
    assert default_config(str(tmp_path / "file_without.py")) is None
    assert default_config("classification").name == "default.yaml"


def test_a_plugin_that_is_edited_is_imported_anew_with_its_modules(tmp_path, empty_plugin):
    folder = tmp_path / "edited"
    folder.mkdir()
    code = "from .part import VALUE as value\n" + empty_plugin
    for number, value in enumerate((1, 22)):
        (folder / "part.py").write_text(f"VALUE = {value}\n")
        (folder / "__init__.py").write_text(code)
        os.utime(folder / "__init__.py", ns=(number, number))
        plugin = import_plugin(str(folder))
        assert plugin.value == value


@pytest.mark.parametrize("below", ["mine", "other", "src/mine"])
def test_the_folder_around_a_package_is_the_plugin_in_it(tmp_path, empty_plugin, below):
    package = tmp_path / "project" / below
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(empty_plugin)
    (package / "default.yaml").write_text("seed: 3\n")
    (tmp_path / "project" / "tests").mkdir()
    (tmp_path / "project" / "tests" / "__init__.py").touch()
    name = str(tmp_path / "project")
    assert plugin_name(name) == package.name
    assert default_config(name) == package / "default.yaml"
    assert Path(import_plugin(name).__file__).parent == package


def test_the_folder_around_several_packages_is_refused_and_names_them(tmp_path, empty_plugin):
    for package in ("one", "two"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(empty_plugin)
    with pytest.raises(PdiffError, match=r"^plugin: got '.*', expected a folder with one package\. Give one of .*/one"):
        load_plugin(str(tmp_path))


@pytest.mark.parametrize("name", ["nowhere/mine", "./mine.py", "~/mine", "a" * 300, "a/" + "b" * 300, "\0", "~", "/"])
def test_a_path_without_a_plugin_is_refused(name):
    with pytest.raises(PdiffError, match="^plugin: got "):
        load_plugin(name)


def test_a_plugin_in_the_folder_of_the_user_is_found(tmp_path, empty_plugin, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(empty_plugin)
    assert hook_names(load_plugin("~/mine.py"), "mine") == ["build", "evaluate"]
