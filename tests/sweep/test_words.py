"""Values of varied keys in words of the command line."""

import pytest

from pdiff.runtime.errors import PdiffError
from pdiff.sweep.words import read_seeds, read_vary, split_values


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("8", ["8"]),
        ("8, 16,32", ["8", "16", "32"]),
        ("[1, 2],[3]", ["[1, 2]", "[3]"]),
        ("{type: flow, shift: 1},gaussian", ["{type: flow, shift: 1}", "gaussian"]),
        ("last_norms(2),regex(a,b)", ["last_norms(2)", "regex(a,b)"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("don't,do", ["don't", "do"]),
        ("['a]',b],c", ["['a]',b]", "c"]),
        ("a)b,c", ["a)b", "c"]),
        ("1,", ["1", ""]),
    ],
)
def test_values_are_split_at_commas_outside_brackets_and_quotes(text, parts):
    assert split_values(text) == parts


def test_values_are_read_as_options_are():
    words = ["engine.autoencoder.latent=8,1e-3,null,true,[1, 2],word", "select=007,norms,null"]
    assert read_vary(words) == {
        "engine.autoencoder.latent": [8, 1e-3, None, True, [1, 2], "word"],
        "select": ["007", "norms", None],
    }


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["seed"], "--vary: got 'seed', expected KEY=a,b,c. Mend it."),
        (["=1"], "--vary: got '=1', expected KEY=a,b,c. Mend it."),
        (["a..b=1"], "--vary: got 'a..b=1', expected KEY=a,b,c. Mend it."),
        (["a=1", "a=2"], "--vary: got 'a' twice. Leave one out."),
        (["a=1,"], "--vary: got 'a=1,', with a value that is empty. Mend it: null is none, '' the empty text."),
        (["a="], "--vary: got 'a=', with a value that is empty. Mend it: null is none, '' the empty text."),
    ],
)
def test_word_that_gives_no_values_is_refused(words, line):
    with pytest.raises(PdiffError) as error:
        read_vary(words)
    assert str(error.value) == line


def test_seeds_are_integers():
    assert read_seeds("0,1, 2") == [0, 1, 2]
    for text in ("0;1", "", "0,1,"):
        with pytest.raises(PdiffError, match=f"^--seeds: got '{text}', expected integers, as in 0,1,2. Mend it.$"):
            read_seeds(text)
