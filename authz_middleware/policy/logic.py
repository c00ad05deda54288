"""Three-valued logic: a condition holds (True), does not hold (False), or cannot be told (None).

These are Kleene's tables. None never turns into True or False by itself; what it means is for the rule to say: a
permit rule does not apply, a deny rule does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from authz_middleware.question import Question

Test = Callable[[Question], bool | None]


def always(question: Question) -> bool:  # noqa: ARG001 - it answers every question alike
    """Holds for every question."""
    return True


def never(question: Question) -> bool:  # noqa: ARG001 - it answers every question alike
    """Holds for no question."""
    return False


def every(tests: Iterable[Test]) -> Test:
    """Holds where each test does; one False decides, whatever cannot be told beside it."""
    parts = tuple(tests)
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        return _both(*parts)

    def test(question: Question) -> bool | None:
        answer: bool | None = True
        for part in parts:
            one = part(question)
            if one is False:
                return False
            if one is not True:
                answer = None
        return answer

    return test if parts else always


def _both(first: Test, second: Test) -> Test:
    """`every` for two tests, the commonest number, without the loop."""

    def test(question: Question) -> bool | None:
        one = first(question)
        if one is False:
            return False
        two = second(question)
        if two is False:
            return False
        return True if one is True and two is True else None

    return test


def some(tests: Iterable[Test]) -> Test:
    """Holds where one of the tests does; one True decides, whatever cannot be told beside it."""
    parts = tuple(tests)
    if len(parts) == 1:
        return parts[0]

    def test(question: Question) -> bool | None:
        answer: bool | None = False
        for part in parts:
            one = part(question)
            if one is True:
                return True
            if one is not False:
                answer = None
        return answer

    return test if parts else never


def negated(inner: Test) -> Test:
    """Holds where the test does not; what cannot be told stays so."""

    def test(question: Question) -> bool | None:
        one = inner(question)
        return not one if one is True or one is False else None

    return test
