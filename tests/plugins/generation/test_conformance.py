"""Image generation keeps the rules for plugins."""

import yaml

from pdiff.testing import check_plugin


def test_generation_keeps_the_rules(tmp_path, tiny_generator):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_generator))
    findings = check_plugin("generation", str(tmp_path / "tiny.yaml"))
    assert [finding.line for finding in findings if finding.state == "failed"] == []
    loss = next(finding for finding in findings if finding.check == "loss")
    assert loss.line.endswith("; what collect minimised at 3 steps")
