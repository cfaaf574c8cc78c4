"""Which rows an expression over columns means, and that no text is ever run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdiff.files.rows import rows_where
from pdiff.runtime.errors import PdiffError

COLUMNS = {
    "step": [0, 40, 86, 86],
    "test_accuracy": [0.1, 0.6, None, 0.9],
    "config.activation": ["relu", "tanh", "relu", None],
    "model::lr": [1e-3, 1e-2, float("nan"), 0.1],
    "odd name": [1, 2, 3, 4],
    "done": [True, False, True, None],
}


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("step==86 & test_accuracy>0.5", [3]),
        ("(step == 86) & (test_accuracy > .5)", [3]),
        ("step==86 and test_accuracy>0.5", [3]),
        ("step == 86 && test_accuracy > 0.5", [3]),
        ("step<1 | step>50", [0, 2, 3]),
        ("step<1 || `odd name` == 2", [0, 1]),
        ("~(step==86)", [0, 1]),
        ("~ step==86 & step>0", [1]),
        ("not step == 86", [0, 1]),
        ("step != 86", [0, 1]),
        ("step in [0, 40]", [0, 1]),
        ("step not in (0, 40)", [2, 3]),
        ("0 < step <= 40", [1]),
        ("config.activation == 'relu'", [0, 2]),
        ('config.activation in ["relu", "tanh"]', [0, 1, 2]),
        ("config.activation not in ['relu']", [1]),
        ("config.activation != 'a & b `c` | ~d'", [0, 1, 2]),
        ("`config.activation` == 'relu'", [0, 2]),
        ("`model::lr` >= 1e-2", [1, 3]),
        ("step % 43 == 0", [0, 2, 3]),
        ("step + `odd name` * 2 - 1 > 40", [1, 2, 3]),
        ("step / 0 == 1 | step == 0", [0]),
        ("-step < -50", [2, 3]),
        ("done", [0, 2]),
        ("~done & step == 40", [1]),
        ("done == True", [0, 2]),
        ("test_accuracy == test_accuracy", [0, 1, 3]),
        ("test_accuracy != 0.1", [1, 3]),
        (" step==0 ", [0]),
    ],
)
def test_an_expression_means_these_rows(expression, rows):
    assert rows_where(expression, COLUMNS, 4) == rows


@pytest.mark.parametrize(
    "expression",
    [
        "", "step", "step=86", "step ==", "step(1)", "__import__('os').system('true')", "step[0] == 1",
        "1 if step else 2",
        "lambda: 1", "[s for s in step]", "step := 3", "step is 86", "step == [86]", "step in 86", "step in []", "1",
        "step ** 2 > 1", "f'{step}' == 'a'", "step == 1; step == 2", "step == 1\nstep == 2", "`step == 1", "(" * 500,
        "step == b'1'", "not 'a'", "step in [step]", "`` == 1",
    ],
)  # fmt: skip
def test_anything_else_is_one_line(expression):
    with pytest.raises(PdiffError, match=r"^checkpoints\.rows: got ") as caught:
        rows_where(expression, COLUMNS, 4)
    assert "\n" not in str(caught.value).replace(expression, "")


def test_an_unknown_column_lists_those_that_are_there():
    with pytest.raises(PdiffError, match=r"got column 'stop' in 'stop==1'\. Did you mean 'step'\? Known: config"):
        rows_where("stop==1", COLUMNS, 4)


def test_a_filter_that_leaves_nothing_says_so():
    with pytest.raises(PdiffError, match=r"got 'step==87', which holds for none of 4 rows\. Mend it\."):
        rows_where("step==87", COLUMNS, 4)


@pytest.mark.parametrize("expression", ["step == '86'", "config.activation > 3", "step in ['86']"])
def test_numbers_are_not_compared_with_texts(expression):
    with pytest.raises(PdiffError, match="which compares .* expected numbers with numbers and texts with texts"):
        rows_where(expression, COLUMNS, 4)


def test_a_cell_of_another_kind_than_the_others_is_just_not_equal():
    assert rows_where("x > 1", {"x": [1, "none", 2]}, 3) == [2]
    assert rows_where("x != 1", {"x": [1, "none", 2]}, 3) == [1, 2]


@given(st.text(max_size=30))
def test_no_text_is_a_traceback(expression):
    try:
        rows_where(expression, COLUMNS, 4)
    except PdiffError:
        return
