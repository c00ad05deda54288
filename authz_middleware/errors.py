"""The exceptions that leave this library.

Exceptions are for mistakes that a person must mend: a wrong setting, a malformed policy, an annotation
that cannot hold. That a decision point did not answer, or that a token is forged, is an expected outcome
and travels as a value (`RemoteFailure`, `CredentialProblem`), never as an exception.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from authz_middleware.decision import Decision


class AuthzError(Exception):
    """Base of every exception that this library raises on purpose."""


class Problem(msgspec.Struct, frozen=True):
    """One mistake in something a person wrote, said so that the person can mend it.

    `where` is a path inside the settings (`issuers[0].audience`) or a place in a file (`billing.yaml:12`);
    `what` says what is wrong and what is accepted instead.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class ProblemsError(AuthzError):
    """Several mistakes in one document, all of them reported at once."""

    heading = "this document cannot be used"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        super().__init__(f"{self.heading}:\n{lines}")


class SettingsError(ProblemsError):
    """The settings cannot be used; the application must not start."""

    heading = "the authorization settings cannot be used"


class PolicyError(ProblemsError):
    """The policy cannot be used; whatever policy was in force before stays in force."""

    heading = "the policy cannot be used"


class AnnotationError(AuthzError):
    """A `@requires` or `@public` that cannot mean anything; raised where it is written, at import time."""


class NoRequestError(AuthzError):
    """`authz.check(...)` was called where no request is being handled, so there is nobody to decide about."""


class AccessDenied(AuthzError):  # noqa: N818 - it is an outcome an application raises and meets, not a fault
    """A check inside a handler was refused.

    The refusal is final for the response: the adapter answers it even when the application catches this
    exception and answers something else. Use `authz.permitted(...)` to ask without that consequence.
    """

    def __init__(self, decision: Decision) -> None:
        self.decision = decision
        super().__init__(f"refused: {decision.reason.value}")


def describe(error: BaseException) -> str:
    """An exception for a log line: its type and where it was raised. Not its text, which may hold a secret."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__qualname__}{place}"
