"""What is known of a condition beside its answer: which inputs it reads, and which part of it asks for scopes.

None of it is used to permit. It says why a request was denied, and whether fetching the resource could change that.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from authz_middleware.policy.inputs import Input
from authz_middleware.policy.logic import Test, always, never
from authz_middleware.question import Question
from authz_middleware.step_up import StepUp, can_be_met


class Leaf(msgspec.Struct, frozen=True):
    """One matcher's test and the inputs it reads."""

    test: Test
    inputs: tuple[Input, ...]


class Profile(msgspec.Struct, frozen=True):
    """A condition's profile.

    `settled` is the part of the condition that no attribute of the resource can change. `scopes` are those that the
    condition asks the token for, outside every `any` and `not`, and `unscoped` is all that it asks beside them.
    `named_scopes` are all that could help it to hold. `condition` is the whole of it, without the authentication that
    its rule asks for; that is `step_up`.
    """

    leaves: tuple[Leaf, ...] = ()
    condition: Test = never
    settled: Test = always
    scopes: tuple[str, ...] = ()
    unscoped: Test = always
    named_scopes: tuple[str, ...] = ()
    step_up: StepUp | None = None

    @property
    def reads_attributes(self) -> bool:
        """Whether the condition reads an attribute that the application knows about the resource."""
        return any(source.is_attribute for leaf in self.leaves for source in leaf.inputs)


class Gaps(msgspec.Struct, frozen=True):
    """The inputs that kept conditions from being told, in the order of their names."""

    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()


def find_gaps(profiles: Iterable[Profile], question: Question) -> Gaps:
    """The missing and stale inputs of those matchers that cannot be told for this question."""
    missing: set[str] = set()
    stale: set[str] = set()
    for profile in profiles:
        for leaf in profile.leaves:
            if leaf.test(question) is None:
                missing.update(source.name for source in leaf.inputs if source.is_missing(question))
                stale.update(source.name for source in leaf.inputs if source.is_stale(question))
    return Gaps(tuple(sorted(missing)), tuple(sorted(stale)))


def find_helpful_scopes(profiles: Iterable[Profile], question: Question) -> tuple[str, ...]:
    """The fewest scopes that, had the token carried them, would have made one of these permit conditions hold.

    Only where the authentication that the rule asks for is there or can be had.
    """
    held = question.principal.scopes
    fewest: tuple[str, ...] = ()
    for profile in profiles:
        lacking = tuple(scope for scope in profile.scopes if scope not in held)
        if lacking and (not fewest or len(lacking) < len(fewest)) and _lacks_scopes_alone(profile, question):
            fewest = lacking
    return fewest


def _lacks_scopes_alone(profile: Profile, question: Question) -> bool:
    if profile.unscoped(question) is not True:
        return False
    return profile.step_up is None or can_be_met(profile.step_up, question.principal, question.now)
