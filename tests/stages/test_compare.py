import pytest

from pdiff.stages.compare import verdict


def rows(**means):
    return {name: {"mean": mean} for name, mean in means.items()}


@pytest.mark.parametrize(
    ("means", "higher", "words"),
    [
        ({"trained": 0.8, "generated": 0.9, "soup": 0.85}, True, "is better than that of trained 0.8000; no baseline"),
        ({"trained": 0.8, "generated": 0.7, "soup": 0.75}, True, "is worse than that of trained 0.8000; better still"),
        ({"trained": 3.0, "generated": 2.0, "soup": 2.5}, False, "is better than that of trained 3.0000; no baseline"),
        ({"trained": 3.0, "generated": 4.0, "soup": 1.0}, False, "trained 3.0000; better still on average: soup"),
        ({"trained": 0.8, "generated": 0.8}, True, "is equal to that of trained"),
    ],
)
def test_verdict_names_the_relation_and_every_better_baseline(means, higher, words):
    assert words in verdict(rows(**means), "metric", higher)


def test_verdict_without_generated_says_so():
    assert "lack trained or generated" in verdict(rows(trained=1.0), "metric", True)
