"""Networks from files: where each comes from, of which training it is, and what of it is a condition."""

import pytest
import torch

from pdiff.run.directory import RunDirectory
from pdiff.run.run import Run
from pdiff.runtime.errors import PdiffError
from pdiff.stages.importing import continued


@pytest.fixture
def files(tmp_path, networks):
    """Return a folder with two trainings, whose files are all called alike."""
    for number, state in enumerate(networks):
        folder = tmp_path / "zoo" / f"seed{number // 3}_x" / f"epoch{9 + number % 3}"
        folder.mkdir(parents=True)
        torch.save(state, folder / "model.pt")
    return tmp_path / "zoo"


def test_a_file_is_told_by_its_path_below_the_common_folder(files, taken):
    provenance = taken(f"{files}/*/*/model.pt", select="all+buffers").provenance
    assert [record["file"] for record in provenance] == [
        f"seed{seed}_x/epoch{epoch}/model.pt" for seed in (0, 1) for epoch in (9, 10, 11)
    ]
    assert "network" not in provenance[0]


@pytest.mark.parametrize("expression", [r"seed(\d+)", r"seed(\d+)_x/", "(seed._x)"])
def test_lineage_is_what_a_group_finds_on_the_path(files, taken, expression):
    provenance = taken(f"{files}/*/*/model.pt", select="all+buffers", lineage=expression).provenance
    assert [record["network"] for record in provenance] == [0, 0, 0, 1, 1, 1]
    assert len({record["lineage"] for record in provenance}) == 2


@pytest.mark.parametrize(
    ("lineage", "words"),
    [
        ("seed", "checkpoints.lineage: got 'seed', expected a column, or a regular expression with one group"),
        (r"(s)(e)", "expected a column, or a regular expression with one group"),
        ("(", r"got '\(' \(.*\), expected a column"),
        ("seed0(_)", r"got 'seed0\(_\)', which does not match 'seed1_x/epoch9/model\.pt'"),
    ],
)
def test_a_lineage_that_is_none_is_one_line(files, taken, lineage, words):
    with pytest.raises(PdiffError, match=words):
        taken(f"{files}/*/*/model.pt", select="all+buffers", lineage=lineage)


def test_conditions_of_a_table_may_say_more_than_is_taken(tmp_path, taken):
    torch.save(torch.randn(4, 73), tmp_path / "z.pt")
    (tmp_path / "t.csv").write_text("step\n1\n1\n2\n2\n")
    (tmp_path / "c.csv").write_text("file,angle\nz.pt:0,0\nz.pt:2,2\nz.pt:3,3\n")
    settings = {"format": {"type": "matrix", "table": "t.csv"}, "base": "built", "conditions": str(tmp_path / "c.csv")}
    provenance = taken(tmp_path / "z.pt", rows="step == 2", **settings).provenance
    assert [record["condition"] for record in provenance] == [{"angle": 2.0}, {"angle": 3.0}]
    with pytest.raises(PdiffError, match=r"has no row for 'z\.pt:1' \(1 of 2 checkpoints\)"):
        taken(tmp_path / "z.pt", rows="step == 1", folder="b", **settings)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("aci", r"checkpoints\.conditions: got column 'aci'. Did you mean 'acc'\? Known: acc, empty, name, part\."),
        ("name", r"z\.pt:0: got 'a' for 'name', expected a finite number"),
        ("empty", r"z\.pt:0: got None for 'empty', expected a finite number"),
    ],
)
def test_a_column_that_is_no_condition_is_one_line(tmp_path, taken, column, words):
    torch.save(torch.randn(2, 73), tmp_path / "z.pt")
    (tmp_path / "t.csv").write_text("acc,name,empty,part\n1,a,,x\n2,b,,x\n")
    with pytest.raises(PdiffError, match=words):
        taken(tmp_path / "z.pt", format={"type": "matrix", "table": "t.csv"}, base="built", conditions=[column])


def test_split_and_group_may_be_columns(tmp_path, taken):
    torch.save(torch.randn(2, 73), tmp_path / "z.pt")
    (tmp_path / "t.csv").write_text("acc,split,group\n1,seen,1\n2,unseen,2\n")
    settings = {"format": {"type": "matrix", "table": "t.csv"}, "base": "built"}
    provenance = taken(tmp_path / "z.pt", conditions=["acc", "split", "group"], **settings).provenance
    assert [(r["condition"], r["split"], r["group"]) for r in provenance] == [
        ({"acc": 1.0}, "seen", "1"),
        ({"acc": 2.0}, "unseen", "2"),
    ]


def test_a_lineage_column_with_empty_cells_is_one_line(tmp_path, taken):
    torch.save(torch.randn(2, 73), tmp_path / "z.pt")
    (tmp_path / "t.csv").write_text("run,x\na,1\n,1\n")
    with pytest.raises(PdiffError, match=r"lineage: got 'run', which is empty for z\.pt:1"):
        taken(tmp_path / "z.pt", format={"type": "matrix", "table": "t.csv"}, base="built", lineage="run")


def test_columns_of_text_that_no_number_can_be_are_kept_but_infinity(tmp_path, taken):
    torch.save(torch.randn(2, 73), tmp_path / "z.pt")
    (tmp_path / "t.csv").write_text("loss,name\ninf,a\n1,b\n")
    provenance = taken(tmp_path / "z.pt", format={"type": "matrix", "table": "t.csv"}, base="built").provenance
    assert [record["columns"] for record in provenance] == [{"name": "a"}, {"loss": 1, "name": "b"}]


def test_rows_of_files_without_columns_are_one_line(files, taken):
    with pytest.raises(PdiffError, match=r"got column 'step' in 'step==1'\. Known: none\."):
        taken(f"{files}/*/*/model.pt", rows="step==1")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("narrow", [0, 2])
def test_files_of_one_network_may_be_of_several_types(tmp_path, taken, networks, caplog, dtype, narrow):
    frozen = networks[0]
    for number, state in enumerate(networks[:3]):
        whole = {name: tensor if name.startswith("head") else frozen[name] for name, tensor in state.items()}
        rounded = {name: t.to(dtype) if t.is_floating_point() else t for name, t in whole.items()}
        torch.save(rounded if number == narrow else whole, tmp_path / f"{number}.pth")
    assert len(taken(tmp_path, select="module(head)")) == 3
    kind = str(dtype).removeprefix("torch.")
    assert sum(f"differ in what is not selected by rounding to {kind}" in line for line in caplog.messages) == 1


def test_lineages_that_nobody_names_are_found_by_the_distances_and_said(
    files, taken, config, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("pdiff.weights.lineages.FEWEST", 40)  # the network has 60 weights
    population = taken(f"{files}/*/*/model.pt", select="all+buffers")
    assert [record["network"] for record in population.provenance] == [0, 1, 2, 3, 4, 5]
    assert "checkpoints: 6 independent lineages, by the distances between the networks" in caplog.text
    run = Run(config(f"{files}/*/*/model.pt", select="all+buffers"), RunDirectory(tmp_path / "run"))
    unsaid = [{k: v for k, v in record.items() if k not in ("network", "crc32")} for record in population.provenance]
    assert len(continued(run, unsaid)) == 6, "an interrupted import goes on behind them"
    named = taken(f"{files}/*/*/model.pt", select="all+buffers", lineage=r"seed(\d+)", folder="named").provenance
    assert [record["network"] for record in named] == [0, 0, 0, 1, 1, 1]
