"""Does a plugin keep the rules? For its own tests, and for `pdiff plugins check`."""

from pdiff.runtime.lazy import lazily

NAMES = ("CHECKS", "Conformance", "Finding", "check_plugin")

__all__ = list(NAMES)
__getattr__ = lazily(__name__, dict.fromkeys(NAMES, "pdiff.testing.conformance"))
