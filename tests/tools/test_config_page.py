"""The page of the config's keys is up to date, and no key is missing on it."""

import ast
import importlib.util
import re
from pathlib import Path

import pytest
from mmengine.registry import Registry

from pdiff.run.config import load_config
from pdiff.runtime.settings import read_yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
CONFIGS = sorted([*(ROOT / "configs").glob("[!_]*/*.yaml"), *(ROOT / "plugins").glob("*/default.yaml")])
CONFIGS = [path for path in CONFIGS if path.parent.name != "sweeps"]  # which have keys of their own
FOREIGN = {"task.noise", "task.network.options"}  # what diffusers takes; its own documentation says it
COMMON = {"classification": "Classification and generation", "generation": "Classification and generation",
          "detection": "Detection and segmentation", "segmentation": "Detection and segmentation"}  # fmt: skip


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("config_page", ROOT / "tools" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tables(plugin: str, which: str = "") -> dict[str, dict[str, set[str]]]:
    """Return for each place that a plugin's config may have the keys of each type; those without a type under ''."""
    found, chapters = {}, ["Parts of the engine", "Sources"]
    chapters += [name for task in (plugin.capitalize(), COMMON[plugin]) for name in (task, f"{task} {which}")]
    for chapter in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading = chapter.partition("\n")[0]
        if heading not in chapters:
            continue
        for section in re.split(r"^### ", chapter, flags=re.MULTILINE)[1:]:
            places, kind = section.partition("\n")[0].strip("`").split(", "), ""
            kinds = {}
            for key in re.findall(r"^\| `(.+?)` \|", section, re.MULTILINE):
                if key.startswith("type: "):
                    kind = key.removeprefix("type: ")
                kinds.setdefault(kind, {"type"} if kind else set()).add(key)
            found |= dict.fromkeys(places, kinds)
    return found


def unknown(section: dict, place: str, known: dict) -> list[str]:
    """Return the keys below a place of a config that the page does not have."""
    kinds = known.get(place)
    if kinds is None:
        return []
    keys, missing = kinds.get(section["type"] if "" not in kinds else "", set()), []
    for key, value in section.items():
        where = f"{place}.{key}"
        missing += [] if key in keys else [where]
        for inner in value if isinstance(value, list) else [value]:
            missing += unknown(inner, where, known) if isinstance(inner, dict) else []
    return missing


def test_page_is_up_to_date(tool):
    assert tool.reference() == PAGE, "Run: python tools/reference.py"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_key_of_a_config_is_on_the_page(path):
    config = load_config(None, str(path), {}, {}).to_dict()
    zoo = "networks" in config["collect"]
    asked = config["task"].get("conditions") or config["collect"].get("conditions")
    known = tables(config["plugin"], "with conditions" if asked else "of a zoo" * zoo)
    missing = [key for section in ("task", "collect") for key in unknown(config[section], section, known)]
    for part in ("scaling", "autoencoder", "generator", "denoiser", "sampler"):
        place = "engine.sampler" if part == "sampler" else f"engine.{part}"
        missing += unknown(config["engine"][part], place, known)
    for source in config["evaluate"]["sources"].values():
        missing += unknown(source, "evaluate.sources.*", known) if source else []
    assert missing == []


def test_every_preset_has_the_keys_of_the_page(tool):
    keys = [dict(tool.flat(read_yaml(path))).keys() for path in (ROOT / "pdiff/engine/presets").glob("*.yaml")]
    assert len(keys) == 3
    assert all(found == keys[0] for found in keys)
    assert all(f"| `{key}` |" in PAGE for key in keys[0])


def test_a_key_that_the_page_does_not_have_is_seen():
    config = read_yaml(ROOT / "plugins" / "classification" / "default.yaml")
    config["task"]["network"]["nmae"] = "resnet18"
    config["collect"]["finetune"]["augment"][0]["shear"] = 1
    known = tables("classification")
    assert unknown(config["task"], "task", known) == ["task.network.nmae"]
    assert unknown(config["collect"], "collect", known) == ["collect.finetune.augment.shear"]


def places_in_code() -> set[str]:
    """Return every place of a config whose section the core or a plugin hands to a function or class."""
    found = set()
    for path in [*(ROOT / "pdiff").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if "template" not in path.parts else ():
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("call", "build")
            if called and len(node.args) > 2 and isinstance(node.args[2], ast.Constant):
                found.add(node.args[2].value)
    return found


def test_every_section_that_becomes_arguments_has_a_table():
    headings = {place for names in re.findall(r"^### `(.+)`$", PAGE, re.MULTILINE) for place in names.split(", ")}
    core = {"fit", "engine.noise_schedule"}  # in the tables of the run and of the engine
    found = places_in_code()
    assert len(found) > 15
    assert found - headings - core == FOREIGN


def test_an_argument_without_a_meaning_is_refused(tool):
    def silent(size: int, depth: int = 3):
        """Do it.

        Args:
            size: of it.
        """

    with pytest.raises(LookupError, match=r"^here: 'depth' has no meaning\."):
        list(tool.settings_of(silent, ["size"], "here"))


def test_a_key_without_a_comment_is_refused(tool, tmp_path):
    (tmp_path / "some.yaml").write_text("a:  # a section\n  b: 1  # one\n  c: 2\nd: 3  # three\n")
    said = tool.comments(tmp_path / "some.yaml")
    assert said == {"a": "a section", "a.b": "one", "a.c": None, "d": "three"}
    with pytest.raises(LookupError, match=r"^some\.yaml: 'a\.c' has no meaning\."):
        tool.row("some.yaml", said, "a.c", "integer", "2")


def test_parts_of_other_packages_are_not_on_the_page(tool, monkeypatch):
    registry = Registry("thing", scope="pdiff")
    registry.register_module(name="foreign", module=pytest.Item)
    monkeypatch.setattr(tool, "resolve_name", lambda name: registry)
    assert "foreign" not in "\n".join(tool.part("engine.thing", "pdiff:THINGS", ""))


def test_arguments_of_several_lines_and_several_names_are_read(tool):
    doc = "Do it.\n\nArgs:\n    a, b: two,\n        joined.\n    c: one.\n\nReturns:\n    d: no argument."
    assert tool.arguments(doc) == {"a": "two, joined.", "b": "two, joined.", "c": "one."}
