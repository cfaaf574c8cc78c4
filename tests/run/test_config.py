"""The resolved config: defaults, presets, options of the command line, and a line for every key that nobody reads."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pdiff.engine.settings import PRESETS, engine_config
from pdiff.run.config import load_config, nested, read_options, resolve, told_of_bases
from pdiff.runtime.errors import PdiffError, check_keys
from pdiff.runtime.settings import Loader, to_yaml


@pytest.fixture
def plugin(tmp_path, empty_plugin):
    """Return the path of a plugin with an embedded config."""
    (tmp_path / "mine.py").write_text(empty_plugin)
    (tmp_path / "mine.yaml").write_text("plugin: mine\nseed: 4\nselect: norms\ntask: {network: {type: a, depth: 2}}\n")
    return str(tmp_path / "mine.py")


def write(path, text: str) -> str:
    """Write a config file and return its path."""
    path.write_text(text)
    return str(path)


def test_dotted_keys_become_sections():
    assert nested({"a.b.c": 1, "a.b.d": 2, "e": 3}) == {"a": {"b": {"c": 1, "d": 2}}, "e": 3}


@pytest.mark.parametrize("options", [{"a": 1, "a.b": 2}, {"a.b": 2, "a.b.c": 1}, {"a.b": 2, "a": 1}])
def test_a_dotted_key_below_a_value_is_refused(options):
    with pytest.raises(PdiffError, match=r"a(\.b)?"):
        nested(options)


def test_the_presets_are_fast_paper_and_tokens():
    assert PRESETS == ("fast", "paper", "tokens")


@pytest.mark.parametrize("preset", PRESETS)
def test_a_complete_engine_section_completes_to_itself(preset):
    complete = engine_config({"preset": preset})
    assert complete["preset"] == preset
    assert engine_config(complete) == complete


@pytest.mark.parametrize("part", ["autoencoder_training", "generator_training"])
def test_every_preset_has_every_setting_of_a_training(part):
    fast, *others = (set(engine_config({"preset": preset})[part]) for preset in PRESETS)
    assert all(keys == fast for keys in others)


def test_fast_is_the_preset_where_none_is_named():
    assert engine_config({}) == engine_config({"preset": "fast"})


def test_own_values_go_over_the_preset():
    complete = engine_config({"preset": "paper", "generator_training": {"steps": 7}, "sampler": {"type": "DDIM"}})
    assert complete["generator_training"] == {**engine_config({"preset": "paper"})["generator_training"], "steps": 7}
    assert complete["sampler"] == {"type": "DDIM"}


def test_an_unknown_preset_is_refused_with_those_that_exist():
    known = r"^engine\.preset: got 'papr'\. Did you mean 'paper'\? Known: fast, paper, tokens\.$"
    with pytest.raises(PdiffError, match=known):
        engine_config({"preset": "papr"})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"sed": 1}, r"^config: got unknown key 'sed'\. Did you mean 'seed'\? Known: "),
        ({"generate": {"nun": 1}}, r"^generate: got unknown key 'nun'\. Did you mean 'num'\?"),
        ({"evaluate": {"source": {}}}, r"^evaluate: got unknown key 'source'\. Did you mean 'sources'\?"),
        ({"compare": {"resample": 1}}, r"^compare: got unknown key 'resample'\."),
        ({"fit": {"holdout": 1}}, r"^fit: got unknown key 'holdout'\. Did you mean 'heldout'\?"),
        ({"checkpoints": {"file": "a"}}, r"^checkpoints: got unknown key 'file'\. Did you mean 'files'\?"),
        ({"engine": {"denoisr": {}}}, r"^engine: got unknown key 'denoisr'\. Did you mean 'denoiser'\?"),
        ({"engine": {"noise_schedule": {"steps": 1}}}, r"^engine\.noise_schedule: got unknown key 'steps'\."),
        ({"engine": {"generator_training": {"lrr": 1}}}, r"^engine\.generator_training: got unknown key 'lrr'\."),
        ({"engine": {"autoencoder_training": {"lrr": 1}}}, r"^engine\.autoencoder_training: got unknown key 'lrr'\."),
    ],
)
def test_an_unknown_key_is_refused_by_its_place_with_those_that_exist(values, line):
    with pytest.raises(PdiffError, match=line):
        resolve(values)


@pytest.mark.parametrize("value", [None, "fast"])
@pytest.mark.parametrize(
    "section", ["engine", "fit", "generate", "evaluate", "compare", "checkpoints", "task", "collect"]
)
def test_a_value_where_a_section_belongs_is_refused_by_its_place(section, value):
    with pytest.raises(PdiffError, match=rf"^{section}: got .*expected a section"):
        resolve({section: value})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"fit": {"heldout": -0.1}}, r"^fit\.heldout: got -0\.1, expected a share of the checkpoints from 0 to 0\.5"),
        ({"fit": {"heldout": 10}}, r"^fit\.heldout: got 10, expected a share .*, not their number\. Set 0\.3 to hold"),
        ({"fit": {"heldout": float("nan")}}, r"^fit\.heldout: got nan, expected a share"),
        ({"fit": {"heldout": True}}, r"^fit\.heldout: got True, expected a number\.$"),
        ({"fit": {"repeats": 0}}, r"^fit\.repeats: got 0, expected an integer from 1 on\.$"),
        ({"fit": {"repeats": 3}, "generate": {"num": 2}}, r"^generate\.num: got 2 for 3 fits \(fit\.repeats\)"),
        ({"generate": {"num": 0}}, r"^generate\.num: got 0, expected an integer from 1 on\.$"),
        ({"generate": {"path": -1}}, r"^generate\.path: got -1, expected a finite number from 0 on\.$"),
        ({"generate": {"sampler": "DDIM"}}, r"^generate\.sampler: got 'DDIM', expected a section\."),
        ({"plugin": 5}, r"^plugin: got 5, expected a text\.$"),
        ({"select": True}, r"^select: got True, expected a text\.$"),
        ({"checkpoints": {"files": ""}}, r"^checkpoints\.files: got '', expected a name\. Give one, or null\.$"),
        ({"checkpoints": {"base": " "}}, r"^checkpoints\.base: got ' ', expected a name\."),
        ({"evaluate": {"train": "a,b"}}, r"^evaluate\.train: got 'a,b', expected a list\. Write \[a,b\]\.$"),
        ({"evaluate": {"train": None}}, r"^evaluate\.train: got None, expected a list\.$"),
        ({"evaluate": {"num": 0}}, r"^evaluate\.num: got 0, expected an integer from 1 on\.$"),
        ({"evaluate": {"only": "soup"}}, r"^evaluate\.only: got 'soup', expected a list\. Write \[soup\]\.$"),
        ({"evaluate": {"only": ["sop"]}}, r"^evaluate\.only: got 'sop'\. Did you mean 'soup'\? Known: codec, ensemble"),
        ({"evaluate": {"only": [1]}}, r"^evaluate\.only: got 1\. Known: codec, "),
        ({"evaluate": {"only": ["swag"], "sources": {"swag": None}}}, r"^evaluate\.only: got 'swag'\. .*Known: codec"),
        ({"evaluate": {"sources": "all"}}, r"^evaluate\.sources: got 'all', expected a section\."),
        ({"evaluate": {"sources": {"mine": "soup"}}}, r"^evaluate\.sources\.mine: got 'soup', expected a section\."),
        ({"compare": {"margin": -1}}, r"^compare\.margin: got -1, expected a finite number from 0 on\.$"),
        ({"compare": {"margin": "some"}}, r"^compare\.margin: got 'some', expected a (finite )?number"),
        ({"compare": {"resamples": 2000}}, r"^compare: got unknown key 'resamples'\. Known: margin\.$"),
        ({"checkpoints": {"files": 5}}, r"^checkpoints\.files: got 5, expected a text\.$"),
        ({"checkpoints": {"conditions": 5}}, r"^checkpoints\.conditions: got 5, expected a text or columns\.$"),
        ({"checkpoints": {"conditions": "c.csv"}}, r"^checkpoints\.conditions: got 'c\.csv' without checkpoints"),
        ({"checkpoints": {"files": "x", "conditions": []}}, r"^checkpoints\.conditions: got \[\], expected a text"),
        ({"checkpoints": {"format": "ray"}}, r"^checkpoints\.format: got {'type': 'ray'} without checkpoints\.files"),
        ({"checkpoints": {"key": "ema"}}, r"^checkpoints\.key: got 'ema' without checkpoints\.files, which it"),
        ({"fit": {"num": 1}}, r"^fit\.num: got 1, expected an integer from 2 on\. Raise it, or set it to null\.$"),
        ({"fit": {"num": 0.5}}, r"^fit\.num: got 0\.5, expected an integer\.$"),
        ({"fit": {"seed": 2**64}}, r"^fit\.seed: got 18446744073709551616, expected an integer of 64 bits\. Give"),
        ({"fit": {"seed": "one"}}, r"^fit\.seed: got 'one', expected an integer\.$"),
        ({"seed": 2**64}, r"^seed: got 18446744073709551616, expected an integer of 64 bits\."),
        ({"fit": {"split": "random"}}, r"^fit\.split: got 'random', expected a section\."),
        ({"fit": {"symmetry": "complement"}}, r"^fit\.symmetry: got 'complement', expected a section\."),
        ({"generate": {"draws": 0}}, r"^generate\.draws: got 0, expected an integer from 1 on\.$"),
        ({"generate": {"guidance": -1}}, r"^generate\.guidance: got -1, expected a finite number from 0 on\.$"),
        ({"generate": {"guidance": "much"}}, r"^generate\.guidance: got 'much', expected a number\.$"),
        ({"evaluate": {"conditional": "all"}}, r"^evaluate\.conditional: got 'all', expected a section\."),
        ({"evaluate": {"conditional": {"mine": "soup"}}}, r"^evaluate\.conditional\.mine: got 'soup', expected a sect"),
        ({"evaluate": {"conditional": {"oracle": None}}}, r"^evaluate\.conditional: lacks `oracle: \{type: oracle\}`"),
        ({"evaluate": {"conditional": {"generated": {"type": "soup"}}}}, r"^evaluate\.conditional: lacks `generated: "),
        ({"engine": {"latent_noise": 0.1}}, r"^engine: got unknown key 'latent_noise'\."),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_place(values, line):
    with pytest.raises(PdiffError, match=line):
        resolve(values)


def test_a_section_that_drops_what_is_below_it_keeps_the_defaults():
    checkpoints = resolve({"checkpoints": {"_delete_": True, "files": "x"}}).checkpoints
    assert checkpoints == resolve({"checkpoints": {"files": "x"}}).checkpoints
    sources = {name: {"type": name} for name in ("trained", "generated")}
    assert list(resolve({"evaluate": {"sources": {"_delete_": True, **sources}}}).evaluate.sources) == list(sources)


def test_a_source_for_conditions_that_is_null_is_left_out_and_a_split_of_another_type_replaces_the_default():
    split = {"type": "sum", "seen": [1, 2], "unseen": [3]}
    config = resolve({"evaluate": {"conditional": {"nearest": None}}, "fit": {"split": split}})
    assert config.evaluate.conditional.nearest is None
    assert config.evaluate.conditional.nearest10 == {"type": "nearest", "k": 10}
    assert config.fit.split == split
    assert resolve({"fit": {"split": {"unseen": 0.3}}}).fit.split == {"type": "random", "select": 0.05, "unseen": 0.3}


@pytest.mark.parametrize("section", ["noise_schedule", "generator_training", "autoencoder_training"])
def test_a_value_where_a_section_of_the_engine_belongs_is_refused_by_its_place(section):
    with pytest.raises(PdiffError, match=rf"^engine\.{section}: got 3, expected a section"):
        resolve({"engine": {section: 3}})


def test_a_resolved_config_resolves_to_itself():
    config = resolve({"plugin": "classification", "task": {"anything": {"goes": 1}}, "engine": {"preset": "paper"}})
    assert resolve(config.to_dict()).to_dict() == config.to_dict()
    assert config.task.anything.goes == 1
    assert config.generate.num == 200


def test_the_plugin_alone_gives_its_embedded_config(plugin):
    config = load_config(plugin, None, {}, {})
    assert (config.plugin, config.seed, config.select) == (plugin, 4, "norms")


def test_a_plugin_without_embedded_config_gets_the_defaults(tmp_path, empty_plugin):
    (tmp_path / "plain.py").write_text(empty_plugin)
    config = load_config(str(tmp_path / "plain.py"), None, {}, {})
    assert (config.seed, config.select, config.engine.preset) == (0, "head", "fast")


def test_the_file_alone_names_the_plugin(tmp_path):
    path = write(tmp_path / "a.yaml", "plugin: classification\nseed: 9\n")
    config = load_config(None, path, {}, {})
    assert (config.plugin, config.seed) == ("classification", 9)


def test_the_file_replaces_the_embedded_config(plugin, tmp_path):
    config = load_config(plugin, write(tmp_path / "a.yaml", "seed: 9\n"), {}, {})
    assert (config.plugin, config.seed, config.select) == (plugin, 9, "head")


def test_the_command_line_goes_over_the_file_and_its_options_over_all(plugin):
    options = {"task.network.depth": 5, "engine.preset": "paper"}
    config = load_config(plugin, None, {"seed": 7, "device": None}, options)
    assert (config.seed, config.device) == (7, "auto")
    assert config.task.network == {"type": "a", "depth": 5}
    assert config.engine.preset == "paper"


def test_neither_plugin_nor_file_is_refused():
    with pytest.raises(PdiffError, match=r"^run: got neither --plugin nor --config\. Give one; .*list"):
        load_config(None, None, {}, {})


def test_a_file_that_names_no_plugin_is_refused_without_one(tmp_path):
    with pytest.raises(PdiffError, match=r"plugin"):
        load_config(None, write(tmp_path / "a.yaml", "seed: 1\n"), {}, {})


def test_a_file_for_another_plugin_is_refused(plugin, tmp_path):
    path = write(tmp_path / "a.yaml", "plugin: detection\n")
    with pytest.raises(PdiffError, match=r"^--plugin: got '.*mine\.py', but .*a\.yaml is for 'detection'\. Leave one"):
        load_config(plugin, path, {}, {})


def test_an_unknown_plugin_is_refused():
    with pytest.raises(PdiffError, match=r"^plugin: got 'clasification'\. Did you mean 'classification'\?"):
        load_config("clasification", None, {}, {})


def test_an_unknown_option_is_refused(plugin):
    with pytest.raises(PdiffError, match=r"^generate: got unknown key 'number'\."):
        load_config(plugin, None, {}, {"generate.number": 3})


def test_words_of_the_command_line_are_values_by_dotted_key():
    words = ["seed=3", "select=regex(a{1,2}b)", "evaluate.train=[generated, soup]", "generate.sampler={type: DDIM}"]
    assert read_options(words, {"device": "cpu"}) == {
        "device": "cpu",
        "seed": 3,
        "select": "regex(a{1,2}b)",
        "evaluate.train": ["generated", "soup"],
        "generate.sampler": {"type": "DDIM"},
    }


@pytest.mark.parametrize(
    "text", ["007", "5", "1e3", "true", "nan", "2024_01", "my runs/ck", "lr=0.1,seed=1/*.pth", "~", "[a]", "{a: b}"]
)
@pytest.mark.parametrize("key", ["checkpoints.files", "checkpoints.prefix", "select", "plugin", "device"])
def test_a_key_that_takes_a_text_takes_it_as_it_is_typed(key, text):
    assert read_options([f"{key}={text}"], {}) == {key: text}
    assert read_options([f"{key}='{text}'"], {}) == {key: text}


def test_null_is_none_for_every_key_and_a_text_in_quotes():
    words = ["checkpoints.files=null", "task.data.scenes=null", "select='null'", "checkpoints.prefix=''"]
    assert list(read_options(words, {}).values()) == [None, None, "null", ""]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["checkpoints"], r"^--cfg-options: got 'checkpoints', expected a\.b=value\. Mend it\.$"),
        (["=3"], r"^--cfg-options: got '=3', expected a\.b=value\."),
        (["a..b=3"], r"^--cfg-options: got 'a\.\.b=3', expected a\.b=value\."),
        (["checkpoints.files="], r"^--cfg-options: got 'checkpoints\.files=', which is no value, .* Give one: null "),
        (["seed=1", "seed=2"], r"^--cfg-options: got 'seed' twice\. Leave one out\.$"),
    ],
)
def test_a_word_that_sets_nothing_or_a_key_that_is_set_is_refused(words, line):
    with pytest.raises(PdiffError, match=line):
        read_options(words, {})


def test_a_key_of_many_parts_is_refused(plugin):
    with pytest.raises(PdiffError, match=r"^--cfg-options: got 'a\.a\..*\.\.\.', expected at most 40 levels\. Sh"):
        load_config(plugin, None, {}, {".".join("a" * 1000): 1})


EVERY = settings(max_examples=60, deadline=None, derandomize=True, database=None)
KEYS = ("seed", "select", "plugin", "checkpoints.files", "task.x", "evaluate.train", "engine.denoiser", "fit", "a.b")
SIGNS = "[]{}()<>,:;&*!|#%@`'\"\\-+=?~.$/ \t\n\0\ud800é0179eEx_"
PIECES = st.sampled_from([*SIGNS, "null", "true", "<<", "1e3", "!!python/"])


@EVERY
@given(st.sampled_from(KEYS), st.one_of(st.text(), st.lists(PIECES).map("".join)))
def test_every_word_either_works_or_is_refused_in_one_line(key, text):
    try:
        options = read_options([f"{key}={text}"], {})
        config = load_config("classification", None, {}, options)
        assert yaml.load(to_yaml(config.to_dict()), Loader) == config.to_dict()
    except PdiffError as error:
        assert str(error)  # noqa: PT017


@EVERY
@given(st.lists(st.text(), max_size=3))
def test_every_list_of_words_either_works_or_is_refused_in_one_line(words):
    try:
        load_config("classification", None, {}, read_options(words, {}))
    except PdiffError as error:
        assert str(error)  # noqa: PT017


def test_an_unknown_key_of_a_base_is_told_with_its_file_and_the_way_to_drop_it(plugin, tmp_path):
    base = write(tmp_path / "base.yaml", "task: {network: {depth: 2}}\nsed: 1\n")
    path = write(tmp_path / "own.yaml", f"_base_: base.yaml\nplugin: {plugin}\ntask: {{width: 3}}\n")
    with pytest.raises(PdiffError) as caught, told_of_bases(path):
        check_keys({"network": {}, "width": 3}, ["width"], "task")
    assert str(caught.value) == (
        f"task: got unknown key 'network'. Known: width. It is from {base}, which is the _base_. "
        "`_delete_: true` in your task drops that of it."
    )
    line = r"unknown key 'sed'\..* which is the _base_\. Leave it out of that file\.$"
    with pytest.raises(PdiffError, match=line), told_of_bases(path):
        load_config(None, path, {}, {})


@pytest.mark.parametrize("key", ["width", "depth"])
def test_an_unknown_key_of_the_file_itself_is_told_as_it_is(tmp_path, key):
    write(tmp_path / "base.yaml", "seed: 1\n")
    path = write(tmp_path / "own.yaml", "_base_: base.yaml\ntask: {width: 3}\n")
    with pytest.raises(PdiffError, match=rf"^task: got unknown key '{key}'\. Known: a\.$"), told_of_bases(path):
        check_keys({key: 3}, ["a"], "task")
