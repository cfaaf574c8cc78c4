"""Detection keeps the rules for plugins."""

import yaml

from pdiff.testing import check_plugin


def test_detection_keeps_the_rules(tmp_path, tiny_detector, library):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_detector))
    findings = check_plugin("detection", str(tmp_path / "tiny.yaml"))
    assert [finding.line for finding in findings if finding.state == "failed"] == []
