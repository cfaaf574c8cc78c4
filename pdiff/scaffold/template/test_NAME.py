"""The plugin keeps pdiff's rules."""

from pathlib import Path

import pytest

from pdiff.testing import CHECKS, Conformance


@pytest.fixture(scope="module")
def conformance(tmp_path_factory):
    """The plugin at work in a temporary folder."""
    return Conformance(str(Path(__file__).parent / "NAME"), tmp_path_factory.mktemp("check"))


@pytest.mark.parametrize("name", CHECKS)
def test_plugin_keeps_the_rule(conformance, name):
    """Each check passes, or has nothing to look at."""
    finding = conformance.check(name)
    assert finding.state != "failed", finding.line
