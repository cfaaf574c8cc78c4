"""Does a plugin keep the rules? For its own tests, and for `tools/plugins.py check`."""

from pdiff.testing.conformance import CHECKS, Conformance, check_plugin
from pdiff.testing.finding import Finding

__all__ = ["CHECKS", "Conformance", "Finding", "check_plugin"]
