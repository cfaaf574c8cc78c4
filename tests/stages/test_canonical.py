"""Networks in canonical form: the same functions, whatever interrupts the work, and an error that names the units."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from pdiff.run.config import resolve
from pdiff.run.directory import RunDirectory
from pdiff.run.record import read_gate
from pdiff.run.run import Run
from pdiff.run.units import check_canonical
from pdiff.runtime import processes as group
from pdiff.runtime.errors import PdiffError
from pdiff.runtime.settings import merge
from pdiff.runtime.storage import read_json
from pdiff.stages.canonical import write_canonical
from pdiff.stages.compare import neighbours
from pdiff.stages.pipeline import run_pipeline

PLUGIN = Path(__file__).parents[1] / "many_lineages.py"
ZOO = {
    "plugin": str(PLUGIN),
    "device": "cpu",
    "fit": {"canonical": "permutation+scale"},
    "engine": {
        "autoencoder": {"latent": 8},
        "denoiser": {"width": 16, "depth": 1},
        "generator_training": {"steps": 20},
    },
    "generate": {"num": 5, "path": 0},
    "evaluate": {"num": 4, "train": [], "sources": {"soup16": {"members": 3}, "ensemble": None}},
}
SYMMETRIES = """

@hookimpl
def symmetries(task, names):
    from pdiff import Group, Place, Symmetries

    entries = torch.arange(HIDDEN)[:, None]
    places = [Place("0.weight", 0, entries), Place("0.bias", 0, entries), Place("2.weight", {axis}, entries)]
    return Symmetries((Group("0.weight", HIDDEN, tuple(places[:{kept}])),))
"""


@pytest.fixture
def zoo(tmp_path):
    """Return a function that runs stages of the zoo, with other settings or another text of the plugin."""

    def go_on(stages=("collect", "fit"), over=None, change=None, gates=False, name="run"):
        values = merge(ZOO, over or {})
        if change is not None:
            (tmp_path / "zoo").mkdir(exist_ok=True)
            (tmp_path / "zoo" / f"{name}.py").write_text(change(PLUGIN.read_text()))
            values["plugin"] = str(tmp_path / "zoo" / f"{name}.py")
        directory = RunDirectory(tmp_path / name)
        run_pipeline(resolve(values), directory, stages, resume=True, overwrite=True, gates=gates)
        return Run(resolve(values), directory)

    return go_on


def given(axis=1, kept=3):
    """Return a change of the plugin: it names its units itself."""
    return lambda text: text + SYMMETRIES.format(axis=axis, kept=kept)


def test_lineages_lie_together_in_canonical_form_and_are_the_same_functions(zoo):
    run = zoo()
    assert run.form.kind == "permutation+scale"
    assert run.lineages.tolist() == [lineage for lineage in range(12) for _ in range(3)]
    before, after = run.collected.tensor(), run.population.tensor()
    assert run.population.provenance[4]["network"] == 1
    assert after.std(0).mean() < before.std(0).mean() / 5
    x = run.task.splits["test"]
    for vector, form in zip(before, after, strict=True):
        outputs = []
        for each in (vector, form):
            run.candidates(each[None]).load(run.task.model, 0)
            outputs.append(run.task.model(x))
        torch.testing.assert_close(*outputs)
    record = json.loads((run.canonical_folder / "canonical.json").read_text())
    assert record["form"] == "permutation+scale"
    assert record["lineages"] == 12
    assert 0 <= record["largest_change"] < 1e-5
    assert record["spread"] < record["spread_before"] / 5


def test_snapshots_of_a_lineage_keep_their_order_to_each_other(zoo):
    run = zoo(over={"fit": {"canonical": "permutation"}, "collect": {"width": 1.0}})
    before, after = (population.tensor().reshape(12, 3, -1) for population in (run.collected, run.population))
    for ones, others in zip(before, after, strict=True):
        torch.testing.assert_close(torch.cdist(ones, ones), torch.cdist(others, others))
        assert torch.equal(ones.sort(1).values.sum(1).sort().values, others.sort(1).values.sum(1).sort().values)


def test_held_out_lineages_do_not_change_the_form(zoo):
    run = zoo()
    held = json.loads((run.directory.folder("fit") / "heldout.json").read_text())["rows"]
    assert held
    used = run.form.reference
    own = [row for row in range(len(run.lineages)) if row not in held and row % 3 == 2]
    torch.testing.assert_close(used, run.population.tensor()[own].double().mean(0).float(), atol=1e-5, rtol=1e-4)


def test_what_killed_runs_leave_is_gone_on_with_and_ends_with_the_same(zoo, killed, results):
    run = zoo()
    whole = results(run.directory.path)
    names = {name for name in whole if "canonical" in name}
    assert {Path(name).name for name in names} == {
        "canonical.json", "form.json", "form.safetensors", "layout.json", "permutations.safetensors",
        "provenance.jsonl", "vectors.f32",
    }  # fmt: skip
    assert set(names) <= set(run.directory.records()["fit"]["files"])
    assert not set(names) & set(run.directory.records()["collect"]["files"])
    for file in ("form.json", "permutations.safetensors", "canonical.json"):
        run.directory.drop(["fit"])
        assert not run.canonical_folder.exists()
        assert killed(partial(zoo, ["fit"]), "os.rename", run.canonical_folder / file)
        zoo(["fit"])
        assert results(run.directory.path) == whole


def test_dropping_the_fit_leaves_the_collection(zoo):
    run = zoo()
    vectors = run.collected.vectors_path.read_bytes()
    again = zoo(["fit"], {"fit": {"canonical": "permutation"}})
    assert again.form.kind == "permutation"
    assert again.collected.vectors_path.read_bytes() == vectors
    none = zoo(["fit"], {"fit": {"canonical": "none"}})
    assert none.form is None
    assert not none.canonical_folder.exists()
    assert none.population is none.collected


def test_gates_judge_the_population_in_canonical_form(zoo):
    run = zoo(over={"collect": {"lineages": 24}})
    collected, fitted = ({c["name"]: c for c in read_gate(run.directory, stage)} for stage in ("collect", "fit"))
    assert collected["basin"]["line"] == collected["runs"]["line"] == "not measured: judged after the canonical form."
    assert list(fitted)[:4] == ["canonical", "copies", "basin", "runs"]
    assert fitted["basin"]["passed"]
    assert fitted["basin"]["line"].startswith("one basin: ")
    assert fitted["canonical"]["figures"]["lineages"] == 24
    assert fitted["canonical"]["figures"]["nearer"] > 0.8


def test_without_a_form_the_gate_advises_one(zoo):
    run = zoo(["collect"], {"fit": {"canonical": "none"}})
    (basin,) = (check for check in read_gate(run.directory, "collect") if check["name"] == "basin")
    assert not basin["passed"]
    assert "bring their units into one order (fit.canonical=permutation, with ReLU permutation+scale)" in basin["line"]


def test_a_form_that_is_asked_for_after_the_collection_is_judged_in_place_of_it(zoo):
    with pytest.raises(PdiffError, match="gate collect/basin: .*fit.canonical=permutation"):
        zoo(["collect"], {"fit": {"canonical": "none"}}, gates=True)
    with pytest.raises(PdiffError, match="gate fit/"):
        zoo(["collect", "fit"], gates=True)


def test_a_form_that_is_given_up_leaves_nothing_unjudged(zoo):
    zoo()
    run = zoo(["fit"], {"fit": {"canonical": "none"}})
    checks = {check["name"]: check for check in read_gate(run.directory, "fit")}
    assert not checks["basin"]["passed"]
    assert "runs" in checks


def test_copies_in_another_order_are_found_as_copies(zoo):
    run = zoo(over={"collect": {"copies": 3}})
    (copies,) = (check for check in read_gate(run.directory, "fit") if check["name"] == "copies")
    assert copies["figures"]["copies"] == 9
    assert "checkpoint 27 (network 9, step 0) is checkpoint 24 (network 8, step 0)" in copies["line"]
    assert np.allclose(run.population.vectors[24], run.population.vectors[33], atol=1e-5)


@pytest.mark.parametrize("width", [0.0, 0.02])
def test_files_of_unknown_lineage_each_get_an_order_of_their_own(zoo, tmp_path, width):
    collected = zoo(["collect"], {"collect": {"each": 1, "width": width}}).collected
    (tmp_path / "files").mkdir()
    for row, vector in enumerate(collected.tensor()):
        torch.save(collected.layout.unflatten(vector), tmp_path / "files" / f"{row}.pt")
    run = zoo(over={"checkpoints": {"files": str(tmp_path / "files")}}, name="brought")
    assert not run.lineages.any()
    before, after = run.collected.tensor(), run.population.tensor()
    assert after.std(0).mean() < before.std(0).mean() / 5
    form, copies = read_gate(run.directory, "fit")[:2]
    assert "12 files, each by itself since their lineage is unknown (checkpoints.lineage), in one order" in form["line"]
    assert copies["figures"]["copies"] == (11 if width == 0 else 0)
    if width:
        assert read_json(run.canonical_folder / "canonical.json")["orders"] == 12


def test_summary_has_the_form(zoo):
    run = zoo(("collect", "fit", "generate", "evaluate", "compare"))
    summary = json.loads((run.directory.folder("compare") / "summary.json").read_text())
    assert summary["canonical"]["form"] == "permutation+scale"
    assert summary["canonical"]["lineages"] == 12
    assert summary["sources"]["soup"]["mean"] > 0.95
    brought, own = run.collected.tensor(), neighbours(run)
    nearest = own.distances(run.population.tensor(), run.lineages)
    assert own.distances(brought).max() < 1e-4 < nearest.min(), "a network in another order and scale is a copy"
    assert summary["sources"]["trained"]["distance"] == pytest.approx(nearest.mean().item())
    assert "of 12 lineages are held out" in read_json(run.directory.folder("fit") / "heldout.json")["line"]


def test_units_that_the_hook_names_are_taken(zoo):
    run = zoo(over={"fit": {"canonical": "permutation"}}, change=given())
    assert [group.name for group in run.form.symmetries.groups] == ["0.weight"]


def test_units_whose_order_is_not_free_stop_the_run_with_their_name(zoo):
    with pytest.raises(PdiffError, match=r"^fit.canonical: checkpoint \d+ is another function in ") as error:
        zoo(over={"fit": {"canonical": "permutation"}}, change=given(kept=2))
    assert "by the units of '0.weight', expected at most 0.001. Mend the plugin's hook symmetries." in str(error.value)


@pytest.mark.parametrize("inputs", [True, False])
def test_units_whose_order_is_not_free_stop_the_run_where_all_are_in_the_order_of_one(zoo, inputs):
    """Of one lineage every order is that of the reference: nothing moves, and all networks stay what they are."""
    over = {"fit": {"canonical": "permutation"}, "collect": {"lineages": 1, "each": 6, "width": 0.0}}
    with pytest.raises(PdiffError, match="checkpoint [0-9] is another function in another order of its units"):
        zoo(over=over, change=lambda text: given(kept=2)(text if inputs else without_inputs(text)))


def test_gains_are_of_use_to_the_scale_alone(zoo):
    def gains(text):
        return given()(text).replace("Group(", "Gain(").replace("Symmetries((", "Symmetries((), (").replace(
            "tuple(places[:3])", "tuple(places[:2]), tuple(places[2:])"
        ).replace("import Group", "import Gain")  # fmt: skip

    assert len(zoo(change=gains).form.symmetries.gains) == 1
    with pytest.raises(PdiffError, match="symmetries returned gains alone, which fit.canonical=permutation has no use"):
        zoo(["collect"], over={"fit": {"canonical": "permutation"}}, change=gains, name="alone")


def test_inputs_that_the_network_does_not_take_are_told(zoo):
    words = "yielded what the network does not take: mat1 and mat2 .*. Yield the arguments of task.model.$"
    with pytest.raises(PdiffError, match=f"^plugin run: inputs {words}"):
        zoo(["collect"], change=lambda text: text.replace("[(task.splits[split],)]", "[(task.splits[split][:, 1:],)]"))


def test_the_form_leaves_the_network_in_its_mode(zoo):
    """A plugin that trains the network as it was built, in training mode, collects the same with a form as without."""
    run = zoo()
    check_canonical(run)
    assert run.built.model.training
    write_canonical(run, range(len(run.lineages)))
    assert run.task.model.training


def test_hook_that_names_places_that_are_not_there_is_told(zoo):
    with pytest.raises(PdiffError, match=r"returned for the units of '0.weight' a place in '2.weight' with entries"):
        zoo(["collect"], change=given(axis=0))


def without_inputs(text):
    """Return the text of the plugin without its hook."""
    return text.replace("@hookimpl\ndef inputs(task, split):", "def no_inputs(task, split):")


def test_plugin_with_neither_hook_is_told_before_the_collection(zoo):
    with pytest.raises(PdiffError, match=r"^plugin bare: lacks the hook inputs, which fit.canonical needs to follow"):
        zoo(["collect"], change=without_inputs, name="bare")


def test_without_inputs_the_signatures_are_compared(zoo):
    run = zoo(over={"fit": {"canonical": "permutation"}}, change=lambda text: given()(without_inputs(text)))
    record = json.loads((run.canonical_folder / "canonical.json").read_text())
    assert record["compared"] == "signatures of a few"
    with pytest.raises(PdiffError, match="its signature on select has a similarity of 0"):
        zoo(
            over={"fit": {"canonical": "permutation"}, "collect": {"width": 0.0}},
            change=lambda text: given(kept=2)(without_inputs(text)), name="wrong",
        )  # fmt: skip


def test_several_processes_end_with_the_same_form(zoo, processes, results):
    run = zoo()
    alone = results(run.directory.path)
    record = json.loads((run.directory.folder("fit") / "heldout.json").read_text())
    fitted = [row for row in range(len(run.lineages)) if row not in record["rows"]]
    run.directory.drop(["fit"])

    def work(_: int) -> None:
        group.join("pytorch")
        write_canonical(Run(resolve(ZOO), run.directory), fitted)
        group.leave()

    started = processes(work)
    assert started.codes() == [0, 0], started.text("err")
    names = {name for name in alone if "canonical" in name}
    assert len(names) == 7
    assert {name: alone[name] for name in names} == {n: d for n, d in results(run.directory.path).items() if n in names}
