import pytest
import torch

from pdiff.plan.limits import (
    Limits,
    check_plan,
    free_memory,
    is_out_of_memory,
    limits_now,
    memory_limit,
    resident,
    within_memory,
)
from pdiff.plan.prediction import Plan, StagePlan
from pdiff.run.directory import STAGES
from pdiff.runtime.errors import PdiffError

CPU = torch.device("cpu")
CLOSED_FORM = {"engine": {"autoencoder_training": {"steps": 0}}}
TRAINED = {"engine": {"autoencoder_training": {"steps": 500}}}


def plan_of(worst: str = "fit", peak: int = 3_000_000, disk: int = 10_000) -> Plan:
    """Return a plan, one stage of which takes more memory than the others."""
    stages = (StagePlan(stage, 1.0, peak if stage == worst else 1_000_000, disk // 5) for stage in STAGES)
    return Plan(100, 10, 8, 30, tuple(stages))


def refused(check, *arguments) -> str:
    """Return the line with which a check refuses."""
    with pytest.raises(PdiffError) as caught:
        check(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_plan_that_fits_exactly_is_accepted():
    check_plan(plan_of(), Limits(3_000_000, 10_000), CLOSED_FORM)


def test_memory_that_the_system_does_not_tell_is_not_checked():
    check_plan(plan_of(), Limits(None, 10_000), CLOSED_FORM)


def test_directory_that_is_too_large_names_what_to_change():
    line = refused(check_plan, plan_of(), Limits(3_000_000, 9_000), CLOSED_FORM)
    assert line == (
        "plan: run directory: got 10 kB, expected at most 9 kB, what is free on its disk. "
        "Give a --work-dir on another disk, select fewer parameters (select), or lower generate.num."
    )


@pytest.mark.parametrize(
    ("stage", "config", "setting"),
    [
        ("collect", CLOSED_FORM, "Lower the batch size in collect"),
        ("fit", CLOSED_FORM, "Select fewer parameters (select)"),
        ("fit", TRAINED, "Lower engine.autoencoder_training.batch_size"),
        ("generate", CLOSED_FORM, "Lower generate.batch_size"),
        ("evaluate", CLOSED_FORM, "Lower the batch size of the evaluation (task), or num in evaluate.sources"),
        ("compare", CLOSED_FORM, "Lower generate.num"),
    ],
)
def test_stage_that_needs_too_much_memory_names_the_setting(stage, config, setting):
    line = refused(check_plan, plan_of(stage), Limits(2_000_000, 10_000), config)
    assert line.startswith(f"plan: memory of {stage}: got 3 MB, expected at most 2 MB, what is free. {setting}")


def test_limits_are_what_is_free(tmp_path):
    limits = limits_now(tmp_path / "not" / "there", "cpu")
    assert limits.disk > 0
    if free_memory() is not None:
        assert limits.memory > resident() > 10_000_000


needs_limits = pytest.mark.skipif(free_memory() is None, reason="the system tells nothing about memory")


@needs_limits
def test_allocation_beyond_the_limit_fails_and_ends_no_process():
    with pytest.raises(RuntimeError) as caught, memory_limit(100_000_000):
        torch.empty(10**9)
    assert is_out_of_memory(caught.value)
    assert len(torch.empty(10**8)) == 10**8  # the limit is gone


@needs_limits
def test_allocation_within_the_limit_succeeds():
    with memory_limit(600_000_000):
        assert len(torch.ones(10**8)) == 10**8


@needs_limits
def test_rehearsal_that_gets_no_memory_is_refused_with_the_setting():
    def rehearse() -> None:
        with within_memory("fit", Limits(resident() + 100_000_000, 0), TRAINED, CPU):
            torch.empty(10**9)

    line = refused(rehearse)
    assert line.startswith("plan: memory of fit: got more than there is, expected at most ")
    assert line.endswith("Lower engine.autoencoder_training.batch_size, or select fewer parameters (select).")


@pytest.mark.parametrize("error", [RuntimeError("mat1 and mat2 shapes"), ValueError("out of memory"), KeyError("a")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)), within_memory("fit", Limits(None, 0), TRAINED, CPU):
        raise error


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("bad_alloc")]
)
def test_errors_of_allocations_are_known(error):
    assert is_out_of_memory(error)
