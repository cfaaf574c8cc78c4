import json

import pytest

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.results import read_metrics
from pdiff.run.run import Run


@pytest.mark.parametrize(("value", "read"), [(0.5, 0.5), (None, -float("inf")), (1e300, -float("inf"))])
def test_a_metric_that_nobody_can_compute_with_is_infinitely_bad(closed, tmp_path, value, read):
    run = Run(resolve(closed), RunDirectory(tmp_path))
    folder = run.directory.folder("evaluate")
    folder.mkdir(parents=True)
    (folder / "trained.jsonl").write_text(json.dumps({"split": "test", "metric": value}) + "\n")
    assert read_metrics(run, "trained")["test"].tolist() == [read]
