import json

import pytest
import torch
from torch import nn

from pdiff.runtime.errors import PdiffError
from pdiff.weights.layout import Layout
from pdiff.weights.roles import free_names

VARIANCE = torch.tensor([0.0, 1e-30, 1e-7, 1e-3, 1.0, 250.0])


@pytest.fixture
def layout():
    return Layout.of({"bn.running_var": VARIANCE, "bn.weight": VARIANCE.clone()})


def test_counters_are_one_integer_each():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
    model.register_buffer("n_averaged", torch.tensor(5))
    model.register_buffer("step", torch.tensor([7], dtype=torch.int32))
    model.register_buffer("places", torch.arange(4))
    model.register_buffer("begun", torch.tensor(True))
    state = model.state_dict()
    left_out = set(state) - set(free_names(state, state))
    assert left_out == {"0.num_batches_tracked", "n_averaged", "step"}
    assert free_names(state, ["1.weight", "absent"]) == ["1.weight", "absent"]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("running_var", "log"),
        ("layer1.0.bn.running_var", "log"),
        ("ema_layer1_bn_running_var", "log"),
        ("norm.moving_variance", "log"),
        ("bn.running_mean", ""),
        ("bn.running_variety", ""),
        ("outrunning_var", ""),
    ],
)
def test_running_variances_are_coded_by_their_names(name, code):
    assert [entry.code for entry in Layout.of({name: torch.ones(2)})] == [code]


def test_variances_come_back_to_rounding_and_what_adds_up_to_nothing_too(layout):
    found = layout.unflatten(layout.flatten({"bn.running_var": VARIANCE, "bn.weight": VARIANCE}))
    torch.testing.assert_close(found["bn.running_var"], VARIANCE, rtol=2e-6, atol=1e-11)
    assert torch.equal(found["bn.weight"], VARIANCE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_variances_are_positive_and_finite_wherever_a_vector_lies(dtype):
    layout = Layout.of({"running_var": torch.ones(5, dtype=dtype)})
    found = layout.unflatten(torch.tensor([-1e4, -20.0, 0.0, 20.0, 1e4]))["running_var"]
    assert found.dtype == dtype
    assert (found > 0).all()
    assert found.isfinite().all()


def test_a_lost_variance_stays_lost(layout):
    vector = layout.flatten({"bn.running_var": VARIANCE, "bn.weight": VARIANCE.clone()})
    assert layout.unflatten(vector * torch.nan)["bn.running_var"].isnan().all()


def test_negative_variances_are_refused_by_name(layout):
    line = r"^epoch_3\.pth: 'bn\.running_var' holds -0\.5, expected no negative value, as it is a running variance\. "
    with pytest.raises(PdiffError, match=line):
        layout.flatten({"bn.running_var": -VARIANCE.clamp(max=0.5), "bn.weight": VARIANCE}, "epoch_3.pth")


def test_the_code_is_written_where_there_is_one_and_read_again(layout):
    records = json.loads(json.dumps(layout.to_json()))
    assert ["code" in record for record in records] == [True, False]
    assert Layout.from_json(records) == layout


def test_variances_that_were_written_as_they_are_are_read_so(layout):
    records = [{key: value for key, value in record.items() if key != "code"} for record in layout.to_json()]
    found = Layout.from_json(records)
    assert [entry.code for entry in found] == ["", ""]
    assert found.fingerprint() != layout.fingerprint()


def test_an_unknown_code_is_no_layout(layout):
    records = [{**record, "code": "square"} for record in layout.to_json()]
    with pytest.raises(ValueError, match="do not fit"):
        Layout.from_json(records)
