"""What plugins and the core hand to each other."""

from pdiff.runtime.lazy import lazily

NAMES = ("Candidates", "Evaluation", "Metric", "Picture", "Snapshot", "Task")

__getattr__ = lazily(__name__, dict.fromkeys(NAMES, "pdiff.task.task"))
