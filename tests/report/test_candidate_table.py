"""What the table of a run without conditions says."""

from pdiff.report.candidate_table import words_for_target


def test_a_target_is_said_as_it_was_given_and_from_which_side_it_is_counted():
    target = {"names": ["loss"], "wanted": [0.25], "measured": [None], "quantile": 0.995}
    up, down = ({"name": "loss", "higher_is_better": higher} for higher in (True, False))
    words = "asked of the generated: loss 0.2500, the 99.5 % quantile of the fitted"
    assert words_for_target(target, up) == words
    assert words_for_target(target, down) == f"{words}, of loss from the highest down"
