"""The pages: one file each, which needs no network and no script."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pdiff.report.cells import interval, number, percent, short, signed
from pdiff.report.conditional_table import head, seconds
from pdiff.report.drawing import Figure
from pdiff.report.table import kind, rows
from pdiff.run.directory import flatten
from pdiff.runtime.errors import PdiffError

MOST_NUMBERS = 12  # of a condition, in a command that can be read
TEMPLATES = Path(__file__).parent / "templates"
TONES = {
    "dead": "bad",
    "copies": "bad",
    "worse": "bad",
    "average-like": "middling",
    "baselines left out": "middling",
    "saturated": "middling",
    "not decided": "middling",
    "as good": "good",
    "better": "good",
}
TONES_OVER_CONDITIONS = {
    "dead": "bad",
    "ignores the condition": "bad",
    "behind": "middling",
    "not decided": "middling",
    "level": "good",
    "ahead": "good",
}


def render(template: str, **values: Any) -> str:
    """Return a page; whatever its values say is escaped, and one that the template misses is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {
        "number": number, "short": short, "percent": percent, "signed": signed, "interval": interval,
        "seconds": seconds,
    }  # fmt: skip
    return environment.get_template(template).render(**values)


def over_candidates(summary: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the template of a run without conditions, and what it alone needs."""
    details = list(dict.fromkeys(key for row in summary["sources"].values() for key in row["details"]))
    return "report.html", {"tone": TONES[summary["verdict_kind"]], "details": details}


def over_conditions(summary: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the template of a run over conditions, and what it alone needs."""
    tone = TONES_OVER_CONDITIONS[summary["verdict_kind"]]
    distances = sorted({found["distance"] for row in summary["sources"].values() for found in row["near"]})
    asked = [f"{name}={value:g}" for name, value in summary["conditions"]["example"].items()]
    example = " ".join(asked if len(asked) <= MOST_NUMBERS else [*asked[:MOST_NUMBERS], "..."])
    return "conditional.html", {"tone": tone, "distances": distances, "example": example, "head": head(summary)}


def report_page(folder: Path, name: str, summary: Mapping[str, Any], figures: Sequence[Figure], config: str) -> str:
    """Return the page of one run.

    Args:
        folder: where the pictures of `summary["pictures"]` lie.
        name: of the run.
        summary: as in `summary.json`.
        figures: in their order.
        config: the resolved config, as YAML.

    Raises:
        PdiffError: a picture is missing or is no PNG.
    """
    parts = kind(summary)
    shown = parts.columns(summary)
    template, more = over_conditions(summary) if summary.get("conditional") else over_candidates(summary)
    return render(
        template,
        name=name,
        summary=summary,
        remarks=parts.remarks(summary),
        failed=[gate for gate in summary["gates"] if not gate["passed"]],
        passed=[gate for gate in summary["gates"] if gate["passed"]],
        caption=parts.caption(summary),
        columns=shown,
        rows=rows(summary, shown),
        labels=parts.labels(summary),
        subject=parts.subject(summary),
        figures=[*figures, *(picture(folder, **given) for given in summary["pictures"])],
        facts=flatten(summary["task"]),
        environment=flatten(summary["environment"]),
        config=config,
        **more,
    )


def picture(folder: Path, file: str, title: str, caption: str) -> Figure:
    """Return a picture of the plugin as a figure."""
    path = folder / file
    if not path.is_file():
        raise PdiffError(f"{path}: is missing. The plugin names it among its pictures, and must write it.")
    data = path.read_bytes()
    if not data.startswith(b"\x89PNG"):
        raise PdiffError(f"{path}: is no PNG file, which a plugin's pictures must be. Save it as PNG.")
    return Figure(title, caption, data)
