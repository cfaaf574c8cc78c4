"""The bench of the canonical form."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_copies_are_found_and_networks_come_nearer_to_their_mean(tmp_path):
    tool = [sys.executable, ROOT / "tools" / "bench" / "canonical.py", "--name", "test_resnet"]
    command = [*tool, "--count", "3", "--zoo", "4", "--place", tmp_path]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    copies = re.findall(r"copy of network \d: (\S+) of the norm", said)
    assert len(copies) == 6
    assert all(float(distance) < 1e-5 for distance in copies)
    spreads = [float(spread) for spread in re.findall(r"(\S+) from the mean", said)]
    assert len(spreads) == 9
    assert all(none > permuted for none, permuted in zip(spreads[::3], spreads[1::3], strict=True))
