"""A policy as typed, frozen values: what an author said, before anything is compiled.

Nothing here is checked; `check.find_problems` does that, for a policy read from a file and for one built in
memory alike. `line` is where a part is written (1-based), 0 when it was not read from a file; it never takes
part in what the policy means.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from authz_middleware.step_up import StepUp

Scalar = str | bool | int | float
Effect = Literal["permit", "deny"]
InputSource = Literal["token", "application", "request"]

INPUT_SOURCES: Final[tuple[InputSource, ...]] = ("token", "application", "request")
EFFECTS: Final[tuple[Effect, ...]] = ("permit", "deny")
NO_LABELS: Final[Mapping[str, tuple[str, ...]]] = {}
NO_RULE_SETS: Final[Mapping[str, tuple[Rule, ...]]] = {}


# Parts of a policy form a tree, never a cycle: the garbage collector need not walk 100,000 of them (gc=False).
class InputRef(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="input"):
    """The value of another input, as the bound of a comparison."""

    name: str


class Equals(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="equals"):
    """The same type and the same value; nothing is converted to make them alike."""

    value: Scalar


class OneOf(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="in"):
    """Equal to one of these values, which are all of one type."""

    values: tuple[Scalar, ...]


class Has(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="has"):
    """A collection that contains this value."""

    value: Scalar


class HasAny(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="has_any"):
    """A collection that contains at least one of these values."""

    values: tuple[Scalar, ...]


class HasAll(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="has_all"):
    """A collection that contains each of these values."""

    values: tuple[Scalar, ...]


class AtMost(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="at_most"):
    """A number, or a label of an ordered set, that is not above the bound."""

    bound: int | float | str | InputRef


class AtLeast(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="at_least"):
    """A number, or a label of an ordered set, that is not below the bound."""

    bound: int | float | str | InputRef


class SameAs(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="same_as"):
    """Equal to the value of another input."""

    input: str


class StartsWith(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="starts_with"):
    """Text that starts with this text."""

    prefix: str


class Exists(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="exists"):
    """Present (`wanted` true) or known to be absent (`wanted` false)."""

    wanted: bool


class Between(msgspec.Struct, frozen=True, gc=False, tag_field="is", tag="between"):
    """A time of day in `[start, end)` on these weekdays, by the clocks of a zone.

    `start` and `end` are `HH:MM` or `HH:MM:SS`, `24:00` being the end of a day. A window whose end is not after its
    start crosses midnight and belongs to the day on which it starts. No `days` means every day.
    """

    start: str
    end: str
    zone: str
    days: tuple[str, ...] = ()


Matcher = Equals | OneOf | Has | HasAny | HasAll | AtMost | AtLeast | SameAs | StartsWith | Exists | Between


class Always(msgspec.Struct, frozen=True, gc=False):
    """Holds whatever is asked; an author has to write it."""


class Match(msgspec.Struct, frozen=True, gc=False):
    """One matcher on one input (`subject.scopes`, `resource.amount`, `context.time` …)."""

    input: str
    matcher: Matcher
    line: int = 0


class AllOf(msgspec.Struct, frozen=True, gc=False):
    """Every part holds."""

    parts: tuple[Condition, ...]


class AnyOf(msgspec.Struct, frozen=True, gc=False):
    """At least one part holds."""

    parts: tuple[Condition, ...]


class Not(msgspec.Struct, frozen=True, gc=False):
    """The part does not hold."""

    part: Condition


Condition = Always | Match | AllOf | AnyOf | Not


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One rule. `actions` are patterns: `invoice:read`, `invoice:*` or `*`. `owner` is None where the policy's
    owner answers for the rule, `authentication` where any authentication will do."""

    name: str
    effect: Effect
    actions: tuple[str, ...]
    condition: Condition
    sensitive: bool = False
    owner: str | None = None
    authentication: StepUp | None = None
    line: int = 0


class InputDeclaration(msgspec.Struct, frozen=True, gc=False):
    """Where an input comes from, how old it may be (`max_age`, seconds) and the label set that orders it."""

    name: str
    source: InputSource
    max_age: float | None = None
    labels: str | None = None
    line: int = 0


class PolicyTest(msgspec.Struct, frozen=True, gc=False):
    """One case that the policy must decide as its author expects, before it comes into force.

    `at` is the clock, in seconds since the epoch. `subject`, `properties` and `context` name inputs as rules do,
    without their first word; `properties` is None where nobody has looked the resource up.
    """

    name: str
    at: float
    action: str
    expect: Effect
    subject: Mapping[str, Any] = {}
    resource_type: str = "resource"
    resource_id: str = "any"
    properties: Mapping[str, Any] | None = None
    as_of: float | None = None
    context: Mapping[str, Any] = {}
    rule: str | None = None
    reason: str | None = None
    line: int = 0


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A whole policy. `degrade` holds the named, narrower rule sets for when the decision point is silent;
    `file` is the name shown in problems, `lines` the lines of what has no place for its own (`owner`,
    `labels.classification` …)."""

    name: str
    owner: str
    inputs: tuple[InputDeclaration, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = NO_LABELS
    rules: tuple[Rule, ...] = ()
    degrade: Mapping[str, tuple[Rule, ...]] = NO_RULE_SETS
    tests: tuple[PolicyTest, ...] = ()
    file: str = "policy"
    lines: Mapping[str, int] = {}
