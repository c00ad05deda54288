"""Questions and policies for tests, short to write and complete where it matters."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from textwrap import dedent, indent
from typing import Any

from authz_middleware.facts import RequestFacts
from authz_middleware.identity.principal import Actor, Principal
from authz_middleware.permission import Permission
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.snapshot import Snapshot
from authz_middleware.question import Question
from authz_middleware.resource import Resource

NOON = datetime.fromisoformat("2026-03-02T12:00:00+00:00").timestamp()  # a Monday

# DESIGN's example, with every part of the format used at least once.
BILLING = """\
policy: billing
owner: payments-platform@example.com
labels:
  classification: [public, internal, confidential, restricted]
inputs:
  subject.scopes:          {from: token}
  subject.clearance:       {from: token, labels: classification}
  resource.amount:         {from: application, max_age: 30s}
  resource.tenant:         {from: application}
  resource.classification: {from: application, labels: classification}
rules:
  - rule: read-invoices
    permit: [invoice:read, invoice:list]
    when:
      subject.scopes: {has: invoices.read}
      context.purpose: {in: [support, audit]}
  - rule: refund-small
    permit: invoice:refund
    sensitive: true
    owner: refunds@example.com
    when:
      subject.roles: {has_any: [cashier, manager]}
      resource.amount: {at_most: 500}
      resource.tenant: {same_as: subject.tenant}
  - rule: read-reports
    permit: "report:*"
    when:
      resource.classification: {at_most: {input: subject.clearance}}
  - rule: no-agents-at-night
    deny: "*"
    when:
      subject.kind: agent
      context.time: {outside: {between: ["08:00", "18:00"], zone: Europe/Berlin}}
degrade:
  read-only:
    - rule: read-while-degraded
      permit: invoice:read
      when:
        subject.scopes: {has: invoices.read}
tests:
  - name: support reads an invoice
    at: 2026-03-02T12:00:00Z
    subject: {id: ada, kind: human, scopes: [invoices.read]}
    action: invoice:read
    context: {purpose: support}
    expect: permit
    rule: read-invoices
  - name: an agent may not at night
    at: 2026-03-02T23:00:00Z
    subject: {id: bot, kind: agent, scopes: [invoices.read]}
    action: invoice:read
    context: {purpose: support}
    expect: deny
    reason: rule.deny
  - name: a cashier refunds little
    at: 2026-03-02T12:00:00Z
    subject: {id: ada, kind: human, roles: [cashier], tenant: acme}
    action: invoice:refund
    resource: {type: invoice, id: "7", properties: {amount: 500, tenant: acme}}
    expect: permit
"""


def snapshot_of(text: str) -> Snapshot:
    """The snapshot of a whole document."""
    return compile_policy(parse_policy(dedent(text), "test.yaml"))


def rules_document(rules: str, head: str = "") -> str:
    """A document around some rules; `head` has further top-level keys."""
    body = indent(dedent(rules).strip("\n"), "  ")
    return f"policy: test\nowner: owner@example.com\n{dedent(head)}rules:\n{body}\n"


def permit_when(condition: str, head: str = "") -> Snapshot:
    """A snapshot with one rule that permits the action `act` under a condition (the flow mapping after `when:`)."""
    return snapshot_of(rules_document(f"- {{rule: only, permit: act, when: {condition}}}", head))


def deny_when(condition: str, head: str = "") -> Snapshot:
    """A snapshot that permits everything but for one deny rule under a condition."""
    rules = f"- {{rule: open, permit: '*', when: always}}\n- {{rule: only, deny: act, when: {condition}}}"
    return snapshot_of(rules_document(rules, head))


def answer_of(condition: str, question: Question, head: str = "") -> bool | None:
    """What a condition says of a question, seen from outside: it holds, it does not, or it cannot be told.

    A permit shows where it holds. A deny also applies where it cannot be told, so the two together tell all three.
    """
    holds = permit_when(condition, head).evaluate(question).permit
    fails = deny_when(condition, head).evaluate(question).permit
    assert not (holds and fails)
    return True if holds else False if fails else None


def ask(
    action: str = "act",
    *,
    attributes: Mapping[str, Any] | None = None,
    as_of: float | None = NOON,
    type_: str = "thing",
    id_: str = "1",
    now: float = NOON,
    runs_in: str = "production",
    facts: Mapping[str, Any] | None = None,
    **principal: Any,
) -> Question:
    """A question of a caller who says only what `principal` has; `actors` may be given as ids."""
    actors = principal.pop("actors", ())
    who = {"issuer": "https://idp.test", "subject": "ada", "issued_at": now, **principal}
    who["actors"] = tuple(Actor(actor) if isinstance(actor, str) else actor for actor in actors)
    return Question(
        principal=Principal(**who),
        permission=Permission(action=action),
        resource=Resource(type_, id_, attributes, as_of),
        facts=RequestFacts(**{"method": "GET", "route": "/things/{id}", "endpoint": "tests:thing", **(facts or {})}),
        environment=runs_in,
        now=now,
    )


def instant(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 date-time."""
    return datetime.fromisoformat(text).timestamp()
