from dataclasses import astuple

import pytest

from pdiff.weights.origin import COLLECTED, FILES, LINEAGES, UNKNOWN, origin_of, sentence
from pdiff.weights.provenance import branch_labels, lineage_labels, runs_of


@pytest.mark.parametrize(
    ("records", "origin"),
    [
        ([{"branch": 0, "step": 1}], COLLECTED),
        ([{"run": {"seed": 0}, "network": 0}], COLLECTED),
        ([{"network": 0, "branch": 0}, {"network": 1, "branch": 0}], LINEAGES),
        ([{"file": "a.pth"}, {"file": "b.pth"}], UNKNOWN),
        ([{"file": "a.pth", "network": None}], UNKNOWN),
        ([{"file": "a.pth", "network": 0, "lineage": "seed0"}, {"file": "b.pth", "network": 0}], FILES),
    ],
)
def test_where_rows_come_from_follows_from_their_provenance(records, origin):
    assert origin_of(records) is origin


@pytest.mark.parametrize("origin", [FILES, UNKNOWN])
def test_files_are_not_told_of_a_collection(origin):
    assert not any("collect" in words for words in astuple(origin))
    assert any("checkpoints.lineage" in words for words in astuple(origin)) == (origin is UNKNOWN)


def test_a_sentence_begins_with_a_capital_letter_and_has_one_full_stop():
    assert sentence("bring more") == sentence("Bring more.") == "Bring more."


def test_files_of_one_lineage_are_one_training():
    records = [{"run": {"seed": 0}, "file": f"{row}.pth", "network": row // 3, "lineage": "s"} for row in range(6)]
    assert branch_labels(records).tolist() == lineage_labels(records).tolist() == [0, 0, 0, 1, 1, 1]
    assert runs_of(records) == [[0, 1, 2], [3, 4, 5]]
