import numpy as np

from pdiff.report.figures import draw_figures
from pdiff.task import Metric

TESTS = {"trained": np.array([0.5, 0.6]), "soup": np.array([0.7])}
SIMILARITIES = {"trained": np.array([0.9, 0.8]), "soup": np.array([0.4])}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_figures_are_drawn(tmp_path):
    draw_figures(tmp_path, Metric("accuracy"), TESTS, SIMILARITIES, {"denoiser": [3.0, 2.0, 1.0]})
    assert names(tmp_path) == ["distribution.png", "similarity.png", "training.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_without_any_training_there_is_no_curve(tmp_path):
    draw_figures(tmp_path, Metric("accuracy"), TESTS, SIMILARITIES, {"autoencoder": []})
    assert names(tmp_path) == ["distribution.png", "similarity.png"]
