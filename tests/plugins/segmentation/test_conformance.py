"""Segmentation keeps the rules for plugins."""

import yaml

from pdiff.testing import check_plugin


def test_segmentation_keeps_the_rules(tmp_path, tiny_segmentor, library):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_segmentor))
    findings = check_plugin("segmentation", str(tmp_path / "tiny.yaml"))
    assert [finding.line for finding in findings if finding.state == "failed"] == []
