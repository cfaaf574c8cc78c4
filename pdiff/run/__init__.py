"""One run: its config, its directory, what is read from it and written to it."""

from pdiff.runtime.lazy import lazily

__getattr__ = lazily(__name__, {"Run": "pdiff.run.run"})
