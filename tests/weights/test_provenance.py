from pdiff.weights.provenance import branch_labels, few_rows, kin_labels, lineage_labels, runs_of

RUN = {"run": {"plugin": "moons", "seed": 0}}
BRANCHES = [{**RUN, "network": number, "branch": branch} for number in (1, 0) for branch in (0, 1) for _ in range(2)]


def test_branches_are_numbered_by_first_appearance():
    assert branch_labels(BRANCHES).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert branch_labels([{"branch": 3}, {"branch": 1}, {"branch": 3}]).tolist() == [0, 1, 0]


def test_branches_of_one_network_are_of_one_lineage():
    assert lineage_labels(BRANCHES).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert lineage_labels([{"seed": 1}, {"seed": 2}]).tolist() == [0, 1]


def test_runs_of_different_seeds_are_of_different_branches_and_lineages():
    records = [{"run": {"seed": seed}, "network": 0, "branch": 0} for seed in (0, 0, 1)]
    assert branch_labels(records).tolist() == lineage_labels(records).tolist() == [0, 0, 1]


def test_files_and_steps_without_keys_are_one_series():
    files = [{**RUN, "file": f"{number}.pth"} for number in range(3)]
    steps = [{**RUN, "step": step} for step in range(3)]
    for records in (files, steps):
        assert branch_labels(records).tolist() == lineage_labels(records).tolist() == [0, 0, 0]


def test_an_empty_provenance_has_no_labels():
    assert branch_labels([]).tolist() == []


def test_runs_are_the_rows_of_each_branch():
    assert runs_of(BRANCHES) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert runs_of([{"branch": 3}, {"branch": 1}, {"branch": 3}]) == [[0, 2], [1]]


def test_few_rows_are_all_or_those_of_whole_trainings():
    provenance = [{"network": row // 5} for row in range(100)]
    assert few_rows(provenance, 100) == [*range(100)]
    rows = few_rows(provenance, 20)
    assert rows == sorted(set(rows))
    assert len(rows) == 20
    assert {row // 5 for row in rows} == {0, 6, 12, 19}
    assert few_rows([{}] * 100, 3) == [0, 49, 99]


def test_what_is_akin_is_of_one_lineage_and_of_one_lineage_of_one_branch():
    assert kin_labels(BRANCHES).tolist() == lineage_labels(BRANCHES).tolist()
    of_one = [{"network": 3, "branch": branch} for branch in (0, 0, 1, 2)]
    assert kin_labels(of_one).tolist() == [0, 0, 1, 2]
    assert kin_labels([{}, {}]).tolist() == [0, 0]
