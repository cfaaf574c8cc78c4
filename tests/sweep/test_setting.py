"""Settings of a sweep, and their names."""

from pdiff.sweep.setting import join, unique


def test_name_is_of_keys_and_values_and_safe_as_a_file():
    assert join({"latent": "8", "seed": "1"}) == "latent=8,seed=1"
    texts = {"select": "regex(a/b)", "x": "-1.5", "betas": "[0.9, 0.99]"}
    assert join(texts) == "select=regex_a_b,x=-1.5,betas=0.9_0.99"
    assert join({}) == ""


def test_names_are_unique_also_where_capitals_do_not_count():
    assert unique("a", []) == "a"
    assert unique("a", ["A"]) == "a~2"
    assert unique("a", ["a", "a~2"]) == "a~3"
    assert len(unique("a" * 300, [])) == 120
    assert unique("a" * 300, [unique("a" * 300, [])]).endswith("a~2")
