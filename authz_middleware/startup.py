"""What must hold between settings, policy and annotations before an application starts, or takes a new policy."""

from __future__ import annotations

from authz_middleware.errors import Problem
from authz_middleware.permission import Requirement
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.settings import Settings
from authz_middleware.settings.model import covers


def policy_problems(settings: Settings, snapshot: Snapshot) -> list[Problem]:
    """What these settings leave open about a policy: a sensitive action without a decision point or without a chosen
    fallback, a fallback to rules that the policy does not have."""
    sensitive = sorted(snapshot.sensitive_actions | set(settings.app.sensitive))
    problems = [problem for action in sensitive for problem in _sensitive_problems(settings, action, "policy")]
    known = ", ".join(sorted(snapshot.rule_sets)) or "none"
    return problems + [
        Problem(
            f'fallback.actions."{action}".rules',
            f"the policy has no degrade rule set {choice.rules!r}; it has: {known}",
        )
        for action, choice in settings.fallback.actions.items()
        if choice.rules is not None and choice.rules not in snapshot.rule_sets
    ]


def requirement_problems(settings: Settings, endpoint: str, requirement: Requirement) -> list[Problem]:
    """What these settings leave open about the annotations of an endpoint."""
    return [
        problem
        for permission in requirement.permissions
        if permission.sensitive or any(covers(pattern, permission.action) for pattern in settings.app.sensitive)
        for problem in _sensitive_problems(settings, permission.action, endpoint)
    ]


def _sensitive_problems(settings: Settings, action: str, where: str) -> list[Problem]:
    problems = []
    if settings.remote is None:
        problems.append(Problem(where, f"{action!r} is sensitive, but no decision point is configured: add [remote]"))
    if settings.fallback.choice_for(action) is None:
        problems.append(
            Problem(
                where,
                f"{action!r} is sensitive, but nothing says what happens when the decision point does not answer: "
                f'set fallback.default = "deny" or [fallback.actions."{action}"] with mode deny, degrade or cached',
            )
        )
    return problems
