"""The published schema: valid itself, true of the examples, and of one mind with the parser about shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from authz_middleware.errors import PolicyError
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.nodes import read_nodes
from authz_middleware.policy.schema import json_schema
from tests.support.policies import BILLING, rules_document

ROOT = Path(__file__).parents[2]
HEAD = "policy: p\nowner: o\n"
DECLARED = """\
labels: {l: [low, high]}
inputs: {resource.x: {from: application, max_age: 1.5m}, resource.l: {from: application, labels: l}}
"""


def valid(text: str) -> bool:
    tree = read_nodes(text, "policy.yaml")
    assert tree.root is not None
    assert tree.problems == []
    return jsonschema.Draft202012Validator(json_schema()).is_valid(tree.root.plain)


def readable(text: str) -> bool:
    try:
        parse_policy(text, "policy.yaml")
    except PolicyError:
        return False
    return True


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def example_policies() -> list[Any]:
    files = sorted(path for path in (ROOT / "example_apps").rglob("*.y*ml") if "policy:" in path.read_text())
    return [
        pytest.param(BILLING, id="design"),
        *(pytest.param(p.read_text(), id=str(p.relative_to(ROOT))) for p in files),
    ]


@pytest.mark.parametrize("text", example_policies())
def test_every_example_policy_is_valid(text: str) -> None:
    assert valid(text)
    assert readable(text)


def rule(text: str) -> str:
    return rules_document(f"- {{{text}}}", DECLARED)


def when(text: str) -> str:
    return rule(f"rule: r, permit: act, when: {text}")


def case(text: str) -> str:
    head = "tests: [{" + text + "}]\n"
    return rules_document("- {rule: r, permit: act, when: always}", head)


CASE = "name: c, at: 2026-03-02T12:00:00Z, action: act, expect: permit"
GOOD = {
    "smallest": HEAD,
    "deny without when": rule("rule: r, deny: '*'"),
    "sensitive": rule("rule: r, permit: [a, 'b:*'], sensitive: true, when: always, owner: x"),
    "not sensitive deny": rule("rule: r, deny: a, sensitive: false"),
    "authentication": rule("rule: r, permit: a, when: always, authentication: {acr: [phr, urn:x:mfa], max_age: 5m}"),
    "one acr": rule("rule: r, permit: a, when: always, authentication: {acr: phr}"),
    "age alone": rule("rule: r, permit: a, when: always, authentication: {max_age: 1d}"),
    "authentication in degrade": (
        f"{HEAD}degrade: {{d: [{{rule: r, permit: a, when: always, authentication: {{acr: phr}}}}]}}"
    ),
    "value": when("{resource.x: 5}"),
    "flag": when("{context.tls: true}"),
    "in": when("{resource.x: {in: [1, 2.5]}}"),
    "has": when("{subject.scopes: {has_all: [a, b]}, resource.x: {has: true}}"),
    "order": when("{resource.x: {at_least: 1, at_most: {input: subject.level}}}").replace(
        "inputs: {", "inputs: {subject.level: {from: token}, "
    ),
    "labels": when("{resource.l: {at_most: high}}"),
    "nests": when(
        "{any: [{resource.x: 1}, {not: {resource.x: {not: 2}}}], all: [always, {resource.x: {any: [1, 2]}}]}"
    ),
    "between": when("{context.time: {between: ['22:00', '06:00:30'], zone: UTC, days: [fri]}}"),
    "outside": when("{context.time: {outside: {between: ['08:00', '24:00'], zone: Europe/Berlin}}}"),
    "degrade": f"{HEAD}degrade: {{narrow: [{{rule: r, permit: a, when: always}}], none: []}}",
    "case": case(
        f"{CASE}, subject: {{scopes: [a]}}, resource: {{type: t, properties: {{}}}}, rule: r, reason: permitted"
    ),
}
BAD = {
    "list": "- a",
    "no owner": "policy: p",
    "empty owner": "policy: p\nowner: ''",
    "padded owner": "policy: p\nowner: ' o'",
    "unknown key": f"{HEAD}rule: []",
    "rules mapping": f"{HEAD}rules: {{}}",
    "input name": f"{HEAD}inputs: {{context.x: {{from: request}}}}",
    "input source": f"{HEAD}inputs: {{subject.x: {{from: cookie}}}}",
    "input without source": f"{HEAD}inputs: {{subject.x: {{max_age: 5s}}}}",
    "input age": f"{HEAD}inputs: {{subject.x: {{from: token, max_age: 5}}}}",
    "one label": f"{HEAD}labels: {{l: [a]}}",
    "no rule name": rule("permit: a, when: always"),
    "no effect": rule("rule: r, when: always"),
    "two effects": rule("rule: r, permit: a, deny: a, when: always"),
    "permit without when": rule("rule: r, permit: a"),
    "sensitive deny": rule("rule: r, deny: a, sensitive: true"),
    "deny with authentication": rule("rule: r, deny: a, authentication: {acr: phr}"),
    "empty authentication": rule("rule: r, permit: a, when: always, authentication: {}"),
    "authentication text": rule("rule: r, permit: a, when: always, authentication: phr"),
    "authentication key": rule("rule: r, permit: a, when: always, authentication: {arc: phr}"),
    "acr with space": rule("rule: r, permit: a, when: always, authentication: {acr: 'a b'}"),
    "acr number": rule("rule: r, permit: a, when: always, authentication: {acr: 5}"),
    "no acr": rule("rule: r, permit: a, when: always, authentication: {acr: []}"),
    "acr twice": rule("rule: r, permit: a, when: always, authentication: {acr: [a, a]}"),
    "age number": rule("rule: r, permit: a, when: always, authentication: {max_age: 300}"),
    "pattern": rule("rule: r, deny: 'inv*'"),
    "no actions": rule("rule: r, deny: []"),
    "empty when": when("{}"),
    "when true": when("true"),
    "unknown matcher": when("{resource.x: {is: 5}}"),
    "empty matcher": when("{resource.x: {}}"),
    "matcher list": when("{resource.x: [1]}"),
    "null": when("{resource.x: null}"),
    "unknown context": when("{context.hour: 5}"),
    "empty in": when("{resource.x: {in: []}}"),
    "mixed in": when("{resource.x: {in: [1, a]}}"),
    "bool bound": when("{resource.x: {at_most: true}}"),
    "bound key": when("{resource.x: {at_most: {output: a}}}"),
    "exists text": when("{resource.x: {exists: 'yes'}}"),
    "empty prefix": when("{resource.x: {starts_with: ''}}"),
    "no zone": when("{context.time: {between: ['08:00', '09:00']}}"),
    "one time": when("{context.time: {between: ['08:00'], zone: UTC}}"),
    "clock": when("{context.time: {between: ['8:00', '09:00'], zone: UTC}}"),
    "day": when("{context.time: {between: ['08:00', '09:00'], zone: UTC, days: [monday]}}"),
    "zone alone": when("{context.time: {zone: UTC}}"),
    "outside without zone": when("{context.time: {outside: {between: ['08:00', '09:00']}}}"),
    "empty any": when("{any: []}"),
    "any mapping": when("{any: {resource.x: 1}}"),
    "not list": when("{not: [{resource.x: 1}]}"),
    "sensitive degrade": f"{HEAD}degrade: {{d: [{{rule: r, permit: a, sensitive: true, when: always}}]}}",
    "degrade mapping": f"{HEAD}degrade: {{d: {{}}}}",
    "case without clock": case("name: c, action: act, expect: permit"),
    "case expectation": case(CASE.replace("permit", "allow")),
    "case action": case(CASE.replace("act,", "'*',")),
    "case reason": case(f"{CASE}, reason: because"),
    "case time": case(f"{CASE}, subject: {{authenticated_at: 5}}"),
    "case key": case(f"{CASE}, request: {{}}"),
    "case resource": case(f"{CASE}, resource: {{kind: t}}"),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_the_parser_reads_the_schema_accepts(text: str) -> None:
    assert readable(text)
    assert valid(text)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_out_of_shape_both_refuse(text: str) -> None:
    assert not readable(text)
    assert not valid(text)
