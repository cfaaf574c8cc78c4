"""What a check is, and what it found."""

from dataclasses import dataclass

PASSED, FAILED, NOT_APPLICABLE = "passed", "failed", "not applicable"


class NotApplicable(Exception):
    """The plugin does not do what a check is about."""


@dataclass(frozen=True)
class Rule:
    """A rule that plugins keep.

    Attributes:
        name: of the check.
        hook: whose rule it is.
        function: `module:name` of what looks at a plugin at work and returns what it saw; raises a `PdiffError` where
            the rule is broken.
        needs: the checks without which there is nothing to look at.
    """

    name: str
    hook: str
    function: str
    needs: tuple[str, ...]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        check: its name.
        hook: whose rule it is.
        state: `passed`, `failed` or `not applicable`.
        line: what was seen; of a failed check also what to do.
    """

    check: str
    hook: str
    state: str
    line: str
