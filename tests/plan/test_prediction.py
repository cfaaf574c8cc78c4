import pytest

from pdiff.plan.prediction import Plan, StagePlan, duration, plan_lines, size

STAGES = (
    StagePlan("collect", 39.4, 1_690_000_000, 47_200_000),
    StagePlan("fit", 7.0, 1_240_000_000, 6_430_000),
    StagePlan("generate", 0.3, 1_250_000_000, 1_640_000),
    StagePlan("evaluate", 31.0, 1_250_000_000, 3_300_000),
    StagePlan("compare", 0.8, 1_250_000_000, 152_000),
)


def test_sums_are_of_all_stages():
    plan = Plan(2048, 300, 32, 1201, STAGES)
    assert plan.seconds == pytest.approx(78.5)
    assert plan.disk_bytes == 58_722_000


def test_lines_say_sizes_and_a_row_for_each_stage():
    first, header, *rows = plan_lines(Plan(2048, 300, 32, 1201, STAGES))
    assert first == "plan: P 2,048 parameters, N 300 checkpoints, L 32, 1,201 candidates"
    assert header.split() == ["stage", "time", "peak", "memory", "on", "disk", "folder"]
    assert [row.split()[0] for row in rows] == ["collect", "fit", "generate", "evaluate", "compare", "all"]
    assert rows[0].split() == ["collect", "39", "s", "1.69", "GB", "47.2", "MB", "population"]
    assert rows[-1].split() == ["all", "1", "min", "18", "s", "1.69", "GB", "58.7", "MB"]


def test_time_that_is_not_known_is_called_so_and_is_in_no_sum():
    unknown = StagePlan("collect", None, 10, 20)
    plan = Plan(2048, 300, 32, 1201, (unknown, *STAGES[1:]), ("Nobody said how long.",))
    lines = list(plan_lines(plan))
    assert lines[2].split()[:3] == ["collect", "not", "known"]
    assert plan.seconds == pytest.approx(39.1)
    assert lines[-1] == "Nobody said how long."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (45.4, "45 s"),
        (59.7, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (93784, "26 h 3 min"),
    ],
)
def test_duration_in_words(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (640, "640 B"), (1000, "1 kB"), (999_900, "1 MB"), (2_100_000, "2.1 MB"), (5e15, "5,000 TB")],
)
def test_size_in_words(count, words):
    assert size(count) == words
