"""The page of the public names says what the docstrings say."""

import importlib.util
from pathlib import Path

import pytest

import pdiff
import pdiff.testing

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def api():
    spec = importlib.util.spec_from_file_location("api", ROOT / "tools" / "api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_up_to_date(api):
    assert api.reference() == PAGE, "Run: python tools/api.py"


@pytest.mark.parametrize("module", [pdiff, pdiff.testing], ids=lambda module: module.__name__)
def test_every_public_name_has_a_heading(module):
    for name in module.__all__:
        assert f"\n### `{module.__name__}.{name}" in PAGE


def test_arguments_become_a_list_and_examples_stay_code(api):
    doc = "Do it.\n\nArgs:\n    a: one\n        and more.\n    b: two.\n\nExample:\n    >>> do(1)"
    assert api.markdown(doc).splitlines() == [
        "Do it.", "", "**Args**", "", "- `a`: one", "  and more.", "- `b`: two.", "", "**Example**", "", "    >>> do(1)"
    ]  # fmt: skip
