"""Which networks are dead, by the rule."""

import numpy as np
import pytest

from pdiff.analysis.dead import dead
from pdiff.task.task import Metric

TRAINED = {"select": np.array([0.88, 0.9, 0.92])}


def test_a_metric_that_is_not_finite_on_any_split_is_dead():
    metrics = {"select": np.array([0.9, np.nan, 0.9, -np.inf]), "test": np.array([0.9, 0.9, np.inf, 0.9])}
    for metric in (Metric("accuracy"), Metric("accuracy", chance=0.1)):
        assert dead(metrics, TRAINED, metric).tolist() == [False, True, True, True]


@pytest.mark.parametrize("higher", [True, False])
def test_who_is_hardly_better_than_chance_on_select_is_dead(higher):
    def turned(values):
        return np.array(values) if higher else 1 - np.array(values)

    metric = Metric("quality", higher, chance=float(turned(0.1)))
    select = turned([0.05, 0.1, 0.179, 0.181, 0.9])
    metrics, trained = {"select": select, "test": turned([0.9] * 5)}, {"select": turned(TRAINED["select"])}
    assert dead(metrics, trained, metric).tolist() == [True, True, True, False, False]


def test_without_a_chance_every_finite_metric_lives():
    assert not dead({"select": np.array([0.0, -5.0, 1e9])}, TRAINED, Metric("loss", False)).any()


def test_where_the_trained_are_no_better_than_chance_only_who_is_not_either_is_dead():
    trained = {"select": np.array([0.05, 0.06, 0.07])}
    metrics = {"select": np.array([0.1, 0.11])}
    assert dead(metrics, trained, Metric("accuracy", chance=0.1)).tolist() == [True, False]
