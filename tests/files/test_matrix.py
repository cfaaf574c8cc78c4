"""Zoos that are one matrix: of the Small CNN Zoo's and of weights2weights' kind; mapped, not copied."""

import gzip
import json

import numpy as np
import pytest
import torch

from pdiff.runtime.errors import PdiffError
from pdiff.runtime.storage import read_json
from pdiff.weights.population import Population

# The order in which the Small CNN Zoo has them: biases first, names and axes of TensorFlow.
ZOO = {
    "sequential/conv2d/bias:0": "conv.bias",
    "sequential/conv2d/kernel:0": "conv.weight",
    "sequential/batch_normalization/gamma:0": "norm.weight",
    "sequential/batch_normalization/beta:0": "norm.bias",
    "sequential/dense/bias:0": "head.bias",
    "sequential/dense/kernel:0": "head.weight",
}
RENAME = {
    r"sequential/": "",
    r"conv2d/kernel:0": "conv.weight",
    r"conv2d/bias:0": "conv.bias",
    r"batch_normalization/gamma:0": "norm.weight",
    r"batch_normalization/beta:0": "norm.bias",
    r"dense/kernel:0": "head.weight",
    r"dense/bias:0": "head.bias",
}
SMALL_CNN_ZOO = {
    "format": {"type": "matrix", "layout": "layout.csv", "table": "metrics.csv.gz", "axes": "tensorflow"},
    "rename": RENAME,
    "base": "built",
}
PARAMETERS = ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "head.weight", "head.bias")


def as_tensorflow(tensor: torch.Tensor) -> torch.Tensor:
    """Return a kernel with its inputs and outputs last."""
    return tensor.permute(*range(2, tensor.ndim), 1, 0) if tensor.ndim > 1 else tensor


@pytest.fixture
def zoo(tmp_path, networks):
    """Return the folder of a zoo as the Small CNN Zoo is stored."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    stored = [{theirs: as_tensorflow(state[own]) for theirs, own in ZOO.items()} for state in networks]
    np.save(folder / "weights.npy", np.stack([torch.cat([t.flatten() for t in s.values()]).numpy() for s in stored]))
    lines, start = [",varname,shape,start_idx,end_idx"], 0
    for number, (name, tensor) in enumerate(stored[0].items()):
        shape = str(tuple(tensor.shape))
        lines.append(f'{number},{name},"{shape}",{start},{start + tensor.numel()}')
        start += tensor.numel()
    (folder / "layout.csv").write_text("\n".join(lines) + "\n")
    rows = ["step,test_accuracy,config.activation,modeldir"]
    rows += [f"{86 if row % 2 else 40},{row / 10},{'relu' if row < 3 else 'tanh'},/dir/{row // 2}" for row in range(6)]
    (folder / "metrics.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    return folder


@pytest.fixture
def in_order(networks) -> torch.Tensor:
    """Return the networks' parameters, in the network's order, as rows."""
    return torch.stack([torch.cat([state[name].flatten() for name in PARAMETERS]) for state in networks])


def test_kernels_of_tensorflow_find_their_place(zoo, taken, in_order):
    population = taken(zoo, **SMALL_CNN_ZOO)
    assert population.layout.names == PARAMETERS
    assert torch.equal(population.tensor(), in_order)


def test_a_part_of_the_network_may_be_selected(zoo, taken, networks):
    population = taken(zoo, select="module(head)", **SMALL_CNN_ZOO)
    assert torch.equal(population.tensor()[4], population.layout.flatten(networks[4]))


def test_a_frozen_part_that_the_matrix_lacks_is_asked_for(zoo, taken):
    with pytest.raises(PdiffError, match=r"weights\.npy: lacks 'norm\.running_mean' and 1 more.*base=built"):
        taken(zoo, **{**SMALL_CNN_ZOO, "base": None})


def test_columns_of_what_is_frozen_are_compared(tmp_path, taken, networks, in_order):
    layout = {name: list(networks[0][name].shape) for name in networks[0] if networks[0][name].ndim}
    rows = torch.stack([torch.cat([state[name].flatten() for name in layout]) for state in networks])
    (tmp_path / "layout.json").write_text(json.dumps(layout))
    settings = {"select": "module(head)", "format": {"type": "matrix", "layout": "layout.json"}}
    torch.save(rows, tmp_path / "all.pt")
    with pytest.raises(PdiffError, match=r"all\.pt:1: differs from all\.pt:0 in 'conv\.weight', which is not selected"):
        taken(tmp_path / "all.pt", folder="one", **settings)
    width = rows.shape[1] - networks[0]["head.weight"].numel() - networks[0]["head.bias"].numel()
    rows[:, :width] = rows[0, :width]
    torch.save(rows, tmp_path / "all.pt")
    assert torch.equal(taken(tmp_path / "all.pt", folder="two", **settings).tensor(), rows[:, width:])


def test_variances_stand_in_vectors_as_in_those_of_files(tmp_path, taken, networks):
    names = [name for name, tensor in networks[0].items() if tensor.ndim]
    rows = torch.stack([torch.cat([state[name].flatten() for name in names]) for state in networks])
    torch.save(rows, tmp_path / "z.pt")
    population = taken(tmp_path / "z.pt", select="all+buffers", format="matrix")
    for row, state in enumerate(networks):
        assert torch.equal(population.tensor()[row], population.layout.flatten(state))
    place = sum(networks[0][name].numel() for name in names[: names.index("norm.running_var")])
    rows[3, place] = -1
    torch.save(rows, tmp_path / "z.pt")
    with pytest.raises(PdiffError, match="'norm.running_var' has negative values"):
        taken(tmp_path / "z.pt", select="all+buffers", format="matrix", folder="b")


def test_rows_are_chosen_and_told_by_the_table(zoo, taken, in_order):
    settings = {"rows": "step==86 & test_accuracy>0.2", "lineage": "modeldir", "conditions": ["test_accuracy"]}
    population = taken(zoo, **SMALL_CNN_ZOO, **settings)
    assert torch.equal(population.tensor(), in_order[[3, 5]])
    assert [{k: v for k, v in record.items() if k not in ("run", "crc32")} for record in population.provenance] == [
        {
            "file": f"weights.npy:{row}",
            "condition": {"test_accuracy": row / 10},
            "network": number,
            "lineage": f"/dir/{row // 2}",
            "columns": {"step": 86, "config.activation": "tanh", "modeldir": f"/dir/{row // 2}"},
        }
        for number, row in enumerate((3, 5))
    ]


def save_numpy(order="C", kind="<f4"):
    """Return a function that saves a matrix as numpy does."""
    return lambda path, rows: np.save(path.with_suffix(".npy"), np.asarray(rows.numpy(), dtype=kind, order=order))


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (save_numpy(), "z.npy"),
        (save_numpy("F"), "z.npy"),
        (save_numpy(kind=">f4"), "z.npy"),
        (save_numpy(kind="<f8"), "z.npy"),
        (save_numpy(kind=">f8"), "z.npy"),
        (lambda path, rows: torch.save(rows, path), "z.pt"),
        (lambda path, rows: torch.save(rows.double(), path), "z.pt"),
        (lambda path, rows: torch.save(rows.T.contiguous().T, path), "z.pt"),
        (lambda path, rows: torch.save({"weights": rows, "epoch": 3}, path), "z.pt"),
        (lambda path, rows: torch.save(torch.cat([rows, rows])[:6], path), "z.pt"),
        (lambda path, rows: torch.save(torch.cat([rows + 1, rows])[6:], path), "z.pt"),
        (lambda path, rows: torch.save(rows, path, _use_new_zipfile_serialization=False), "z.pt"),
    ],
)
def test_without_a_layout_the_columns_are_the_selection_in_order(tmp_path, taken, in_order, save, name):
    save(tmp_path / "z.pt", in_order)
    population = taken(tmp_path / name, format="matrix", base="built")
    assert torch.equal(population.tensor(), in_order)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(tmp_path, taken, in_order, kind):
    torch.save(in_order.to(kind), tmp_path / "z.pt")
    assert torch.equal(taken(tmp_path / "z.pt", format="matrix", base="built").tensor(), in_order.to(kind).float())


@pytest.mark.parametrize("name", ["z.npy", "z.pt"])
def test_a_matrix_that_lies_as_a_population_does_is_not_copied(tmp_path, taken, in_order, name):
    save_numpy()(tmp_path / "z.pt", in_order) if name == "z.npy" else torch.save(in_order, tmp_path / "z.pt")
    population = taken(tmp_path / name, format="matrix", base="built")
    assert (tmp_path / "run" / "population" / "vectors.f32").stat().st_size == 0
    assert read_json(tmp_path / "run" / "population" / "vectors.json")["path"] == str(tmp_path / name)
    assert torch.equal(population.tensor(), in_order)


def test_a_copy_can_be_asked_for(tmp_path, taken, in_order):
    save_numpy()(tmp_path / "z.pt", in_order)
    population = taken(tmp_path / "z.npy", format={"type": "matrix", "copy": True}, base="built")
    assert not (tmp_path / "run" / "population" / "vectors.json").exists()
    assert torch.equal(population.tensor(), in_order)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda data: data[:-1] + b"\x7f",
            r"z\.npy: row 5 differs from its checksum. Put it back as it was",
        ),
        (lambda data: data[:-4], r"z\.npy: got \d+ bytes, expected \d+; the file is truncated. Put it back as it was"),
    ],
)
def test_a_matrix_that_changed_is_noticed(tmp_path, taken, in_order, damage, words):
    save_numpy()(tmp_path / "z.pt", in_order)
    taken(tmp_path / "z.npy", format="matrix", base="built")
    data = damage((tmp_path / "z.npy").read_bytes())
    (tmp_path / "z.npy").unlink()  # so that what is mapped stays
    (tmp_path / "z.npy").write_bytes(data)
    with pytest.raises(PdiffError, match=words):
        Population.open(tmp_path / "run" / "population")


def test_rows_that_are_not_finite_can_be_left_out(tmp_path, taken, in_order, caplog):
    in_order[2, 3] = torch.nan
    save_numpy()(tmp_path / "z.pt", in_order)
    population = taken(tmp_path / "z.npy", format={"type": "matrix", "finite": True}, base="built")
    assert [record["file"] for record in population.provenance] == [f"z.npy:{row}" for row in (0, 1, 3, 4, 5)]
    assert "left out 1 of 6 rows, which hold NaN or infinity" in caplog.text


def test_dimensions_may_be_lists_that_end_with_a_shape(tmp_path, taken, networks, in_order):
    dimensions = {f"unet.{n}": [[networks[0][n].numel()], networks[0][n].shape] for n in reversed(PARAMETERS)}
    torch.save(dimensions, tmp_path / "weight_dimensions.pt")
    rows = torch.stack([torch.cat([s[n].flatten() for n in reversed(PARAMETERS)]) for s in networks])
    torch.save(rows.bfloat16(), tmp_path / "all_weights.pt")
    settings = {"format": {"type": "matrix", "layout": "weight_dimensions.pt"}, "prefix": "unet.", "base": "built"}
    assert torch.equal(taken(tmp_path / "all_weights.pt", **settings).tensor(), in_order.bfloat16().float())


def test_names_that_the_network_does_not_have_are_said(tmp_path, taken, in_order, caplog):
    (tmp_path / "layout.csv").write_text("name,start,end\nhead.bias,0,4\nother.bias,4,6\n")
    settings = {"select": "regex(head.bias)", "format": {"type": "matrix", "layout": "layout.csv"}}
    np.save(tmp_path / "z.npy", in_order[:, :6].numpy())
    taken(tmp_path / "z.npy", base="built", **settings)
    assert "left out other.bias, which the network does not have" in caplog.text


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ("name,start,end\nhead.b,0,4\n", r"got the names head\.b, none of which the network has \(conv\.weight, "),
        ("name,start\nhead.bias,0\n", "got columns name, start, expected varname, shape, start_idx and end_idx"),
        (
            "name,start,end\nhead.bias,0,999\n",
            "got columns 0 to 999 for 'head.bias', expected some of 0 to 73",
        ),
        ("name,start,end\nhead.bias,4,4\n", "got columns 4 to 4 for 'head.bias'"),
        ("name,start,end\nhead.bias,a,4\n", "got 'head.bias' from 'a' to 4, expected each name once"),
        ("name,start,end\nhead.bias,0,4\nhead.bias,0,4\n", "expected each name once"),
        ("name,shape,start,end\nhead.bias,(5),0,4\n", r"got 4 columns for 'head.bias' of shape \(5,\), expected 5"),
        ("name,shape,start,end\nhead.bias,zero,0,4\n", r"got 4 columns for 'head.bias' of shape \(\), expected 1"),
        ("name,start,end\nhead.bias,0,5\n", r"'head.bias' has shape \(4,\) in the matrix, expected .* \(4,\)"),
        ('name,shape,start,end\nhead.weight,"(12, 4)",0,48\n', r"has shape \(12, 4\).*axes=tensorflow"),
        ("name,start,end\nconv.bias,0,3\n", r"lacks 'conv\.weight'|lacks 'head\.bias'"),
    ],
)
def test_a_layout_that_does_not_fit_is_one_line(tmp_path, taken, in_order, layout, words):
    (tmp_path / "layout.csv").write_text(layout)
    np.save(tmp_path / "z.npy", in_order.numpy())
    with pytest.raises(PdiffError, match=words):
        taken(tmp_path / "z.npy", format={"type": "matrix", "layout": "layout.csv"}, base="built")


def test_two_names_that_become_one_are_one_line(zoo, taken):
    with pytest.raises(PdiffError, match=r"checkpoints\.rename: .* both become 'head'"):
        taken(zoo, **{**SMALL_CNN_ZOO, "rename": {"^.*$": "head"}})


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda folder: None, r"got none in '.*', expected one of \.npy, \.pt, \.pth\. Name it"),
        (lambda f: [np.save(f / n, np.zeros((2, 2))) for n in ("a.npy", "b.npy")], "got a.npy, b.npy in "),
        (lambda f: np.save(f / "a.npy", np.zeros(4, np.float32)), r"got float32 of shape \(4,\), expected a matrix"),
        (lambda f: np.save(f / "a.npy", np.zeros((4, 2), int)), r"got int64 of shape \(4, 2\), expected a matrix"),
        (lambda f: np.save(f / "a.npy", np.zeros((0, 2))), r"of shape \(0, 2\), expected a matrix"),
        (lambda f: np.save(f / "a.npy", np.array([{}])), r"a\.npy: cannot be read \("),
        (lambda f: (f / "a.npy").write_bytes(b"no"), r"a\.npy: cannot be read \("),
        (lambda f: (f / "a.pt").write_bytes(b"no"), r"a\.pt: cannot be read \("),
        (lambda f: torch.save([1], f / "a.pt"), "a.pt: got list, expected a matrix"),
        (lambda f: torch.save({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, f / "a.pt"), "holds 2 matrices. Set "),
        (lambda f: np.save(f / "a.npy", np.zeros((2, 5))), "got rows of 5 values, expected 73, those of the selection"),
    ],
)
def test_a_file_that_is_no_matrix_is_one_line(tmp_path, taken, write, words):
    (tmp_path / "zoo").mkdir()
    write(tmp_path / "zoo")
    with pytest.raises(PdiffError, match=words):
        taken(tmp_path / "zoo", format="matrix", base="built")


def test_a_missing_matrix_is_one_line(tmp_path, taken):
    with pytest.raises(PdiffError, match=r"got '.*/z\.npy', which is no file"):
        taken(tmp_path / "z.npy", format="matrix")


def test_a_key_names_the_matrix_of_several(tmp_path, taken, in_order):
    torch.save({"a": in_order + 1, "b": in_order}, tmp_path / "z.pt")
    assert torch.equal(taken(tmp_path / "z.pt", format="matrix", base="built", key="b").tensor(), in_order)
    with pytest.raises(PdiffError, match=r"got key 'c'\. Set checkpoints\.key\. Known: a, b\."):
        taken(tmp_path / "z.pt", format="matrix", base="built", key="c")


def test_a_table_of_another_length_is_one_line(zoo, taken):
    (zoo / "metrics.csv").write_text("step\n1\n")
    settings = {**SMALL_CNN_ZOO["format"], "table": "metrics.csv"}
    with pytest.raises(PdiffError, match=r"table: got 1 cells in column 'step', expected 6, a row for each"):
        taken(zoo, **{**SMALL_CNN_ZOO, "format": settings})


def test_unknown_axes_are_one_line(zoo, taken):
    with pytest.raises(PdiffError, match=r"axes: got 'keras'\. Known: tensorflow, torch\."):
        taken(zoo, **{**SMALL_CNN_ZOO, "format": {"type": "matrix", "axes": "keras"}})


def test_a_zoo_is_fitted_and_drawn_from(zoo, fitted):
    directory = fitted(zoo, **SMALL_CNN_ZOO)
    assert (directory.path / "samples" / "vectors.safetensors").exists()


def test_numbers_wider_than_torch_has_them_are_one_line(tmp_path, taken):
    np.save(tmp_path / "m.npy", np.ones((3, 31), np.longdouble))
    with pytest.raises(PdiffError, match=r"m\.npy: got float\d+ of shape \(3, 31\), expected .*, 16 to 64 bits\."):
        taken(tmp_path / "m.npy", format="matrix")


def test_a_layout_that_no_file_can_be_called_is_one_line(zoo, taken):
    own = {**SMALL_CNN_ZOO, "format": {"type": "matrix", "layout": "x" * 5000}}
    with pytest.raises(PdiffError, match=r"format\.layout: got '.*', which cannot be read \(File name too long\)"):
        taken(zoo, **own)
