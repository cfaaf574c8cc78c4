"""The page is one valid file that needs nothing else."""

import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from pdiff.analysis.conditional import KINDS as CONDITIONAL_KINDS
from pdiff.analysis.verdict import KINDS
from pdiff.report.drawing import Figure
from pdiff.report.page import TONES, TONES_OVER_CONDITIONS, report_page
from pdiff.runtime.errors import PdiffError

VOID = {"meta", "br", "img", "link", "hr", "input"}
PNG = b"\x89PNG\r\n\x1a\n"


class Strict(HTMLParser):
    """Raises where tags are not closed in order; keeps what it saw."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.tags, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        raise AssertionError(f"{tag} closes itself")

    def handle_endtag(self, tag):
        assert self.open, f"{tag} was not open"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def parse(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    assert len(parser.ids) == len(set(parser.ids))
    parser.words = " ".join(" ".join(parser.text).split())
    return parser


@pytest.fixture
def page_of(tmp_path, made, drawn):
    def make(pictures=(), config="plugin: x\n", **given):
        summary, _ = made(**given)
        return report_page(tmp_path, "demo", {**summary, "pictures": list(pictures)}, drawn[1], config)

    return make


@pytest.mark.parametrize("given", [{}, {"higher": False, "failed": True, "ignored": True}])
def test_page_is_valid_and_complete(page_of, given):
    page = page_of(**given)
    parsed = parse(page)
    assert page.startswith("<!DOCTYPE html>")
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert len(images) == 11
    assert all(image["alt"] in parsed.words for image in images)
    order = [
        "average-like:",
        "better than gaussian",
        "not shown to be new",
        "note: the generated",
        "checks passed",
        "The sources side by side",
        "Figures",
        "Further numbers",
        "Command",
    ]
    places = [parsed.words.index(words) for words in order]
    assert places == sorted(places)


def test_page_needs_no_network_and_no_script(page_of):
    page = page_of()
    for tag, attributes in parse(page).tags:
        assert tag not in {"script", "link", "iframe", "object"}
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("#", "data:"))
    assert "@import" not in page
    assert "url(" not in page


def test_page_has_light_dark_telephone_and_print(page_of):
    page = page_of()
    for words in ("prefers-color-scheme: dark", "width=device-width", "@media print", "break-inside: avoid"):
        assert words in page


def test_memory_of_a_gpu_is_told_beside_that_of_the_host(page_of, made, tmp_path, drawn):
    assert "peak GPU memory" not in page_of()
    summary = made()[0] | {"peak_gpu_memory_bytes": {"fit": 3 * 2**20}}
    parsed = parse(report_page(tmp_path, "demo", summary, drawn[1], "plugin: x\n"))
    assert "stage seconds peak memory, MiB peak GPU memory, MiB collect" in parsed.words
    assert "fit 14.2 1192 3 generate 0.4 1192 evaluate" in parsed.words


def test_text_is_escaped(page_of):
    page = page_of(failed=True, config="a: <b>&</b>\n")
    assert "decoded &lt;held-out&gt; checkpoints" in page
    assert "resnet18 &lt;timm&gt;" in page
    assert "a: &lt;b&gt;&amp;&lt;/b&gt;" in page


def test_failed_gate_is_loud_and_passed_gates_are_folded(page_of):
    words = parse(page_of(failed=True)).words
    assert "1 of 4 checks failed." in words
    assert "3 of 4 checks passed" in words
    assert "ignored" not in words


@pytest.mark.parametrize(
    ("failed", "words"),
    [(True, "1 of 4 checks failed, and the run went on because the gates were ignored (--no-gates)."),
     (False, "Gates were ignored (--no-gates); none of them failed.")],
)  # fmt: skip
def test_ignored_gates_are_told(page_of, failed, words):
    assert words in parse(page_of(failed=failed, ignored=True)).words


def test_figures_that_do_not_exist_are_empty(made, tmp_path):
    summary, _ = made()
    unknown = ("ci", "ci_simultaneous", "p", "p_adjusted")
    summary["comparisons"]["soup"] |= dict.fromkeys(unknown) | {"relation": "no clear difference"}
    untested = {"line": "copying is not tested: one branch", "controls": {}, "power": False, "copies": False}
    summary |= {"choice": None, "copying": untested, "task": {}}
    words = parse(report_page(tmp_path, "demo", summary, [], "")).words
    assert "None" not in words
    assert "copying is not tested: one branch." in words
    assert "controls" not in words


def test_a_choice_that_cannot_be_ranked_is_told_in_words(made, tmp_path):
    summary, _ = made()
    summary["choice"] |= {"spearman": None, "p": None, "regret": None, "n": 2, "gain": None, "difference": None}
    words = parse(report_page(tmp_path, "demo", summary, [], "")).words
    assert "2 generated candidates: they are too few, or too equal, to rank; the choice is one without" in words
    assert "Spearman" not in words
    assert "Is choosing worth anything?" not in words


def test_what_choosing_is_worth_is_told_in_a_sentence(page_of):
    words = parse(page_of()).words
    assert (
        "On the test split the choice by training data is +0.0030 better than the mean of all candidates "
        "(95 % -0.0010 to 0.0070), that by select +0.0042; against each other the former is -0.0012 "
        "(95 % -0.0040 to 0.0016)." in words
    )


def test_the_copying_test_stands_with_its_controls(page_of):
    words = parse(page_of()).words
    assert "the generated lie 0.81 times as far; controls: codec as expected" in words
    assert "fresh not as expected" in words


def test_every_comparison_says_what_the_generated_are(page_of):
    words = parse(page_of()).words
    assert "no clear difference (better if it were the only one)" in words


def test_every_kind_of_verdict_has_its_tone(made, tmp_path):
    summary, _ = made()
    assert set(TONES) == set(KINDS)
    for kind in TONES:
        assert kind in report_page(tmp_path, "demo", {**summary, "verdict_kind": kind}, [], "")


def test_pictures_of_the_plugin_are_inside_the_page(page_of, tmp_path):
    (tmp_path / "real.png").write_bytes(PNG)
    page = page_of([{"file": "real.png", "title": "Real", "caption": "What is real."}])
    image = [attributes for tag, attributes in parse(page).tags if tag == "img"][-1]
    assert image["src"] == "data:image/png;base64,iVBORw0KGgo="
    assert image["alt"] == "Real"


@pytest.mark.parametrize(("data", "words"), [(None, "real.png: is missing"), (b"GIF89a", "real.png: is no PNG file")])
def test_picture_that_cannot_be_shown_is_named(page_of, tmp_path, data, words):
    if data:
        (tmp_path / "real.png").write_bytes(data)
    with pytest.raises(PdiffError, match=words):
        page_of([{"file": "real.png", "title": "Real", "caption": ""}])


@pytest.fixture
def conditional_page(tmp_path, made_conditional):
    def make(changes=(), **given):
        summary = made_conditional(**given) | dict(changes)
        return report_page(tmp_path, "subsets", summary, [Figure("Strips", "How to read it.", PNG)], "plugin: x\n")

    return make


@pytest.mark.parametrize("given", [{}, {"higher": False, "draws": True, "failed": True}])
def test_page_over_conditions_is_valid_and_complete(conditional_page, given):
    page = conditional_page(**given)
    parsed = parse(page)
    order = [
        "level with kernel_ridge",
        "102 unseen conditions in 51 groups",
        "868 seen, 52 to select a source by, 102 unseen (434, 26 and 51 groups)",
        "tools/export.py RUN -o network.safetensors --condition class0=",
        "checks passed",
        "The sources side by side",
        "groups of conditions, each of which counts once",
        "Figures",
        "Strips",
        "Each source against the oracle",
        "Generated against each other source",
        "By the distance to the nearest seen condition",
        "What was measured against what was asked for",
        "oracle 0.11: the training of one network, of 1,022 at once",
        "Command",
    ]
    places = [parsed.words.index(words) for words in order]
    assert places == sorted(places)
    assert "None" not in parsed.words
    assert "&lt;0.9215&gt;" in page


def test_the_best_source_stands_out_in_every_table(conditional_page):
    page = conditional_page()
    assert page.count('<tr class="subject"><th scope="row">kernel_ridge ★</th>') == 5
    assert page.count('<tr class="subject">') == 5


def test_figures_over_conditions_that_do_not_exist_are_empty(conditional_page, made_conditional):
    summary = made_conditional(levels=1)
    unknown = {"difference": 0.0, "ci": None, "p": None, "p_adjusted": None}
    for row in summary["sources"].values():
        row |= {"obeys": {}, "note": "", "seconds": None}
    summary["sources"]["ridge"]["to_oracle"] = unknown
    changes = {"sources": summary["sources"], "comparisons": {}, "best_source": None}
    words = parse(conditional_page(changes, levels=1)).words
    assert "None" not in words
    for title in ("Generated against each", "By the distance", "What was measured", "seconds count", "tools/export.py"):
        assert title not in words


def test_every_kind_of_verdict_over_conditions_has_its_tone(conditional_page):
    assert set(TONES_OVER_CONDITIONS) == {*CONDITIONAL_KINDS, "not decided"}
    for kind, tone in TONES_OVER_CONDITIONS.items():
        assert f'<span class="kind {tone}">{kind}</span>' in conditional_page({"verdict_kind": kind})


def test_command_names_only_the_first_numbers_of_a_long_condition(conditional_page, made_conditional):
    conditions = made_conditional()["conditions"] | {"example": {f"x{k}": 0.5 for k in range(40)}}
    assert "x10=0.5 x11=0.5 ..." in parse(conditional_page({"conditions": conditions})).words


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("conditional", [False, True])
def test_page_is_no_wider_than_the_screen(page_of, conditional_page, tmp_path, width, conditional):
    if not shutil.which("chromium"):
        pytest.skip("needs chromium")
    page = conditional_page(draws=True) if conditional else page_of(failed=True)
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    frame = f"""<!DOCTYPE html><body><iframe id="f" src="report.html" style="border:0;width:{width}px"></iframe><script>
    f.onload = () => {{
        const root = f.contentDocument.documentElement
        document.title = `${{root.scrollWidth - root.clientWidth}} too wide`
    }}</script>"""
    (tmp_path / "frame.html").write_text(frame)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
               f"--user-data-dir={tmp_path / 'chromium'}", "--virtual-time-budget=5000", "--dump-dom",
               f"file://{tmp_path / 'frame.html'}"]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "<title>0 too wide</title>" in dom
