"""Documents: what they mean, and what is said of those that cannot be used."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from authz_middleware.errors import PolicyError
from authz_middleware.policy import document
from authz_middleware.policy.document import parse_policy, read_policy
from authz_middleware.policy.model import AllOf, Always, AtMost, Between, Equals, Has, InputRef, Match, Not
from authz_middleware.policy.nodes import MAX_CHARACTERS, MAX_DEPTH
from authz_middleware.step_up import StepUp
from tests.support.policies import BILLING, rules_document

HEAD = "policy: p\nowner: o\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(dedent(text), "billing.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_the_example_reads_as_it_is_written() -> None:
    policy = parse_policy(BILLING, "billing.yaml")
    assert (policy.name, policy.owner, policy.file) == ("billing", "payments-platform@example.com", "billing.yaml")
    assert policy.labels == {"classification": ("public", "internal", "confidential", "restricted")}
    assert [rule.name for rule in policy.rules] == [
        "read-invoices",
        "refund-small",
        "read-reports",
        "no-agents-at-night",
    ]
    read, refund, report, night = policy.rules
    assert (read.effect, read.actions, read.sensitive, read.line) == (
        "permit",
        ("invoice:read", "invoice:list"),
        False,
        12,
    )
    assert isinstance(read.condition, AllOf)
    assert read.condition.parts[0] == Match("subject.scopes", Has("invoices.read"), 15)
    assert (refund.sensitive, refund.owner) == (True, "refunds@example.com")
    assert report.condition == Match("resource.classification", AtMost(InputRef("subject.clearance")), 28)
    assert isinstance(night.condition, AllOf)
    assert night.condition.parts[0] == Match("subject.kind", Equals("agent"), 32)
    assert night.condition.parts[1] == Not(Match("context.time", Between("08:00", "18:00", "Europe/Berlin"), 33))
    assert {declaration.name: declaration.max_age for declaration in policy.inputs}["resource.amount"] == 30.0
    assert [rule.name for rule in policy.degrade["read-only"]] == ["read-while-degraded"]
    assert [test.expect for test in policy.tests] == ["permit", "deny", "permit"]


def test_words_that_other_yaml_dialects_convert_stay_text() -> None:
    policy = parse_policy(
        rules_document("- {rule: no, permit: on, when: {subject.tenant: yes, subject.id: 08:00}}"), "p"
    )
    rule = policy.rules[0]
    assert (rule.name, rule.actions) == ("no", ("on",))
    assert isinstance(rule.condition, AllOf)
    assert [part.matcher for part in rule.condition.parts if isinstance(part, Match)] == [
        Equals("yes"),
        Equals("08:00"),
    ]


def test_always_is_written_out() -> None:
    assert parse_policy(rules_document("- {rule: r, permit: a, when: always}"), "p").rules[0].condition == Always()


@pytest.mark.capability("C25")
@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("{acr: phr}", StepUp(("phr",))),
        ("{acr: [phr, mfa], max_age: 5m}", StepUp(("phr", "mfa"), 300)),
        ("{max_age: 8h}", StepUp((), 28_800)),
        ("{acr: '2'}", StepUp(("2",))),
    ],
)
@pytest.mark.parametrize("place", ["rules", "degrade"])
def test_a_rule_says_how_a_person_must_have_authenticated(written: str, asked: StepUp, place: str) -> None:
    rule = f"- {{rule: r, permit: a, when: always, authentication: {written}}}"
    policy = parse_policy(f"{HEAD}rules:\n{rule}" if place == "rules" else f"{HEAD}degrade:\n  d:\n  {rule}", "p")
    (found,) = policy.rules or policy.degrade["d"]
    assert found.authentication == asked


BAD: list[tuple[str, str, str]] = [
    ("nothing", "", "billing.yaml:1: is empty"),
    ("a list", "- a", "billing.yaml:1: a policy must be a mapping"),
    ("no owner", "policy: p", "billing.yaml:1: a policy needs the key 'owner'"),
    ("empty owner", "policy: p\nowner:", "billing.yaml:2: 'owner' must be a text that is not empty"),
    ("name with control", 'policy: "a\\nb"\nowner: o', "billing.yaml:1: 'policy' must be a name"),
    ("unknown key", f"{HEAD}rule: []", "billing.yaml:3: a policy has no key 'rule'; did you mean 'rules'?"),
    ("duplicate key", f"{HEAD}owner: x", "billing.yaml:3: gives 'owner' again; it was first given on line 2"),
    ("number as name", "policy: 5\nowner: o", "billing.yaml:1: 'policy' must be a text"),
    ("key not text", f"{HEAD}labels: {{5: [a, b]}}", "billing.yaml:3: has a key that is not text"),
    ("anchor", f"{HEAD}rules: &all []", "billing.yaml:3: uses an anchor or alias"),
    ("alias", f"{HEAD}rules: *all", "billing.yaml:3: uses an anchor or alias"),
    ("tag", f"{HEAD}rules: !!python/name:os.system []", "billing.yaml:3: uses a tag"),
    ("merge key", f"{HEAD}<<: {{rules: []}}", "billing.yaml:3: a policy has no key '<<'"),
    ("second document", f"{HEAD}---\n{HEAD}", "billing.yaml:3: starts a second document"),
    ("other yaml version", f"%YAML 1.1\n---\n{HEAD}", "billing.yaml:2: asks for another version of YAML"),
    ("not yaml", f"{HEAD}rules: [", "is not YAML"),
    ("colon", f"{HEAD}rules: a: b", "billing.yaml:3: is not YAML"),
    ("control character", f"{HEAD}# \x07", "is not YAML: has a character that YAML does not allow"),
    ("too deep", f"{HEAD}rules: {'[' * (MAX_DEPTH + 1)}", f"billing.yaml:3: is nested deeper than {MAX_DEPTH} levels"),
    ("infinity", rules_document("- {rule: r, permit: a, when: {resource.x: {at_most: .inf}}}"), "has the number .inf"),
    ("not a number", rules_document("- {rule: r, permit: a, when: {resource.x: .nan}}"), "has the number .nan"),
    ("overflow", rules_document("- {rule: r, permit: a, when: {resource.x: 1e999}}"), "has the number 1e999"),
    (
        "long number",
        rules_document(f"- {{rule: r, permit: a, when: {{resource.x: {'9' * 19}}}}}"),
        "has the number 999",
    ),
    ("hex", rules_document("- {rule: r, permit: a, when: {resource.x: 0x1F}}"), "has the number 0x1F"),
    # labels and inputs
    ("one label", f"{HEAD}labels: {{s: [a]}}", "billing.yaml:3: labels 's' must be two or more different names"),
    (
        "label twice",
        f"{HEAD}labels: {{s: [a, b, a]}}",
        "billing.yaml:3: labels 's' must be two or more different names",
    ),
    ("label list", f"{HEAD}labels: {{s: a}}", "billing.yaml:3: labels 's' must be a list, not 'a'"),
    (
        "input name",
        f"{HEAD}inputs: {{context.tme: {{from: request}}}}",
        "billing.yaml:3: input 'context.tme' cannot be declared",
    ),
    ("input source", f"{HEAD}inputs: {{subject.x: {{from: tokn}}}}", "did you mean 'token'?"),
    ("no source", f"{HEAD}inputs: {{subject.x: {{}}}}", "billing.yaml:3: input 'subject.x' needs the key 'from'"),
    (
        "source that does not fit",
        f"{HEAD}inputs: {{subject.x: {{from: application}}}}",
        "input subject.x comes 'from: token', not 'application'",
    ),
    ("age without unit", f"{HEAD}inputs: {{subject.x: {{from: token, max_age: 30}}}}", "must be a time with its unit"),
    ("zero age", f"{HEAD}inputs: {{subject.x: {{from: token, max_age: 0s}}}}", "max_age must be a time above zero"),
    (
        "age of a request",
        f"{HEAD}inputs: {{context.time: {{from: request, max_age: 5s}}}}",
        "is read from the request itself and has no age",
    ),
    ("label set", f"{HEAD}inputs: {{subject.x: {{from: token, labels: sizes}}}}", "has no label set 'sizes'"),
    (
        "labels of a set of names",
        f"{HEAD}labels: {{s: [a, b]}}\ninputs: {{subject.roles: {{from: token, labels: s}}}}",
        "cannot hold the labels of a set",
    ),
    # rules
    ("rule without name", rules_document("- {permit: a, when: always}"), "billing.yaml:4: a rule needs the key 'rule'"),
    ("neither effect", rules_document("- {rule: r, when: always}"), "rule 'r' must have exactly one of"),
    (
        "both effects",
        rules_document("- {rule: r, permit: a, deny: b, when: always}"),
        "rule 'r' must have exactly one of",
    ),
    (
        "permit without when",
        rules_document("- {rule: r, permit: a}"),
        "billing.yaml:4: rule 'r' needs the key 'when'; 'when: always' permits everybody",
    ),
    ("empty when", rules_document("- {rule: r, permit: a, when: {}}"), "rule 'r': 'when' must be a mapping of inputs"),
    ("null when on a deny", rules_document("- {rule: r, deny: a, when: }"), "rule 'r': 'when' must be a mapping"),
    ("when true", rules_document("- {rule: r, permit: a, when: true}"), "rule 'r': 'when' must be a mapping of inputs"),
    (
        "name twice",
        rules_document("- {rule: r, deny: a}\n- {rule: r, deny: b}"),
        "billing.yaml:5: rule 'r' is given twice; it was first given on line 4",
    ),
    (
        "name twice across sets",
        rules_document("- {rule: r, deny: a}", "degrade: {d: [{rule: r, deny: a}]}\n"),
        "rule 'r' is given twice",
    ),
    ("sensitive deny", rules_document("- {rule: r, deny: a, sensitive: true}"), "only a permit can be sensitive"),
    ("sensitive text", rules_document("- {rule: r, permit: a, sensitive: yes, when: always}"), "must be true or false"),
    (
        "authentication of a text and a number",
        rules_document("- {rule: r, permit: a, when: always, authentication: {acr: [phr, 5]}}"),
        "billing.yaml:4: each of rule 'r': 'authentication': 'acr' must be a text",
    ),
    (
        "authentication of a deny",
        rules_document("- {rule: r, deny: a, authentication: {acr: phr}}"),
        "billing.yaml:4: rule 'r': authentication can only be asked for by a permit; a deny is final",
    ),
    *(
        (
            f"authentication {written}",
            rules_document(f"- rule: r\n  permit: a\n  when: always\n  authentication: {written}"),
            f"billing.yaml:{line}: rule 'r': {said}",
        )
        for written, line, said in [
            ("phr", 7, "'authentication' must be a mapping of keys to values, not 'phr'"),
            ("~", 7, "'authentication' must be a mapping of keys to values, not empty"),
            ("{}", 4, "authentication must ask for acr, max_age or both"),
            ("{arc: phr}", 7, "'authentication' has no key 'arc'; did you mean 'acr'?"),
            ("{acr: 5}", 7, "'authentication': 'acr' must be a text"),
            ("{acr: []}", 7, "'authentication': 'acr' must not be an empty list"),
            ("{acr: phr mfa}", 4, "authentication acr 'phr mfa' must be 1 to 256 visible ASCII characters"),
            ("{acr: [a, a]}", 4, "authentication acr must be up to 16 values, each once"),
            ("{max_age: 5}", 7, "'authentication': 'max_age' must be a time of whole seconds"),
            ("{max_age: 0s}", 7, "'authentication': 'max_age' must be a time of whole seconds"),
            ("{max_age: 500ms}", 7, "'authentication': 'max_age' must be a time of whole seconds"),
        ]
    ),
    (
        "sensitive degrade",
        f"{HEAD}degrade:\n  d:\n  - {{rule: r, permit: a, sensitive: true, when: always}}",
        "billing.yaml:5: rule 'r': 'sensitive' means nothing in a degrade rule set",
    ),
    (
        "degrade that says it is not sensitive",
        f"{HEAD}degrade:\n  d:\n  - {{rule: r, permit: a, sensitive: false, when: always}}",
        "'sensitive' means nothing in a degrade rule set",
    ),
    ("no action", rules_document("- {rule: r, deny: []}"), "must name one or more actions"),
    ("action twice", rules_document("- {rule: r, deny: [a, a]}"), "must name one or more actions, each once"),
    ("misspelt key", rules_document("- {rule: r, permits: a, when: always}"), "did you mean 'permit'?"),
    (
        "deep condition",
        rules_document("- {rule: r, deny: a, when: " + "{not: " * 16 + "{subject.id: a}" + "}" * 17),
        "billing.yaml:4: rule 'r': its condition is nested deeper than 16 levels",
    ),
    *(
        (f"pattern {pattern}", rules_document(f"- {{rule: r, deny: '{pattern}'}}"), "is not an action pattern")
        for pattern in ("inv*", "*:read", "a:*:b", "a::b", ":a", "a:", "a b", "a/b", "**", "é")
    ),
]
CONDITIONS: list[tuple[str, str]] = [
    ("{subject.scope: {has: a}}", "did you mean 'subject.scopes'?"),
    ("{resource.y: 1}", "input 'resource.y' is not declared; add 'resource.y: {from: application}' under inputs"),
    ("{resource.x: {same_as: subject.tenent}}", "did you mean 'subject.tenant'?"),
    ("{resource.x: {at_most: {input: resource.z}}}", "input 'resource.z' is not declared"),
    ("{resource.x: {at_mst: 5}}", "has no matcher 'at_mst'; did you mean 'at_most'?"),
    ("{resource.x: {}}", "resource.x must be a value or a matcher"),
    ("{resource.x: [a]}", "resource.x must be a value or a matcher"),
    ("{resource.x: }", "resource.x must be a value or a matcher"),
    ("{resource.x: {equals: }}", "must be a text, a number, true or false, not empty"),
    ("{resource.x: {equals: [a]}}", "must be a text, a number, true or false, not a list"),
    ("{resource.x: {in: []}}", "must not be an empty list"),
    ("{resource.x: {in: a}}", "must be a list, not 'a'"),
    ("{resource.x: {in: [a, 1]}}", "all of one type"),
    ("{resource.x: {in: [1, true]}}", "all of one type"),
    ("{resource.x: {has_any: [[a]]}}", "must be a text, a number, true or false"),
    ("{resource.x: {at_most: true}}", "'at_most' must be a finite number, a label or {input: name}"),
    ("{resource.x: {at_most: high}}", "'at_most: high' compares labels"),
    ("{resource.l: {at_most: 5}}", "'at_most' must be a label, not 5"),
    ("{resource.l: {at_most: midle}}", "did you mean 'middle'?"),
    ("{resource.l: hihg}", "resource.l: is never 'hihg'; did you mean 'high'?"),
    ("{resource.l: {at_most: {input: resource.m}}}", "compares two different label sets"),
    ("{subject.clearance: {at_most: 5}}", "is text, and 'at_most' orders numbers"),
    ("{subject.clearance: {at_most: {input: subject.tenant}}}", "cannot order text"),
    ("{subject.clearance: {at_most: {input: subject.roles}}}", "cannot compare with subject.roles"),
    ("{resource.x: {at_most: {inputs: subject.id}}}", "a bound has no key 'inputs'; did you mean 'input'?"),
    ("{resource.x: {same_as: resource.x}}", "compares the input with itself"),
    ("{subject.tenant: {same_as: subject.roles}}", "'same_as' never holds: subject.roles is a set of names"),
    ("{subject.tenant: {same_as: context.tls}}", "'same_as' never holds"),
    ("{resource.x: {starts_with: ''}}", "must be a text that is not empty"),
    ("{resource.x: {exists: yes}}", "must be true or false"),
    ("{subject.scopes: invoices.read}", "subject.scopes is a set of names and cannot be matched with 'equals'"),
    ("{subject.tenant: {has: a}}", "subject.tenant is text and cannot be matched with 'has'"),
    ("{subject.scopes: {has: 5}}", "subject.scopes: is text, never 5"),
    ("{context.tls: 'true'}", "context.tls: is true or false, never 'true'"),
    ("{subject.kind: agnt}", "subject.kind: is never 'agnt'; did you mean 'agent'?"),
    ("{context.time: '08:00'}", "context.time is a time and cannot be matched with 'equals'; accepted: between"),
    ("{resource.x: {between: ['08:00', '18:00'], zone: UTC}}", "cannot be matched with 'between'"),
    ("{context.time: {between: ['08:00', '18:00']}}", "needs a 'zone'"),
    ("{context.time: {between: ['08:00'], zone: UTC}}", "must be two times"),
    ("{context.time: {between: ['8:00', '18:00'], zone: UTC}}", "'between' has '8:00'"),
    ("{context.time: {between: ['08:00', '08:00'], zone: UTC}}", "starts and ends at the same time"),
    ("{context.time: {between: ['24:00', '08:00'], zone: UTC}}", "cannot start at"),
    ("{context.time: {between: ['08:00', '18:00'], zone: Europe/Berln}}", "did you mean 'Europe/Berlin'?"),
    ("{context.time: {between: ['08:00', '18:00'], zone: ../UTC}}", "is not known"),
    ("{context.time: {between: ['08:00', '18:00'], zone: UTC, days: [monday]}}", "did you mean 'mon'?"),
    ("{context.time: {between: ['08:00', '18:00'], zone: UTC, days: [mon, mon]}}", "gives a day twice"),
    ("{context.time: {outside: {between: ['08:00', '18:00']}}}", "'outside' needs the key 'zone'"),
    ("{context.time: {zone: UTC}}", "has no matcher 'zone'"),
    ("{any: []}", "'any' must not be an empty list"),
    ("{any: {subject.id: a}}", "'any' must be a list"),
    ("{all: always}", "'all' must be a list"),
    ("{not: []}", "'when' must be a mapping"),
]
DECLARED = """\
labels: {l: [low, middle, high], m: [small, large]}
inputs:
  resource.x: {from: application}
  resource.l: {from: application, labels: l}
  resource.m: {from: application, labels: m}
"""


@pytest.mark.parametrize(("text", "said"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_a_mistake_is_named_with_its_place(text: str, said: str) -> None:
    found = problems_of(text)
    assert any(said in problem for problem in found), found
    assert all(problem.startswith("billing.yaml:") for problem in found)


@pytest.mark.parametrize(("condition", "said"), CONDITIONS)
@pytest.mark.parametrize("effect", ["permit", "deny"])
def test_a_mistake_in_a_condition_is_named_with_its_line(condition: str, said: str, effect: str) -> None:
    found = problems_of(rules_document(f"- rule: r\n  {effect}: a\n  when:\n    {condition}", DECLARED))
    assert any(said in problem for problem in found), found
    assert all(problem.startswith("billing.yaml:12: rule 'r': ") for problem in found), found


def test_every_mistake_is_reported_at_once_in_the_order_of_the_lines() -> None:
    found = problems_of(
        """\
        policy: p
        owner: o
        inputs:
          resource.x: {from: token}
        rules:
          - rule: a
            permit: "b c"
            when: {subject.scope: {has: a}}
          - rule: b
            permit: x
        tests: 5
        """
    )
    lines = [int(problem.split(":")[1]) for problem in found]
    assert lines == [4, 6, 8, 9, 11]


def test_a_mistake_is_reported_once() -> None:
    found = problems_of("policy: p\nowner: 5\nrules:\n- {rule: r, permit: 5, when: {}}\n")
    assert len(found) == 3


def test_problems_never_break_the_line_they_are_logged_on() -> None:
    found = problems_of(f'{HEAD}"a\\nb": 1\nrules: [{{rule: "x\\ny", deny: "a\\rb"}}]')
    assert found
    assert all(problem.isprintable() for problem in found)


def test_a_document_is_bounded_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is longer than" in problems_of("#" * (MAX_CHARACTERS + 1))[0]


def test_a_file_is_bounded_before_it_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", 10)
    (tmp_path / "p.yaml").write_text(BILLING)
    with pytest.raises(PolicyError, match="is larger than 10 bytes"):
        read_policy(tmp_path / "p.yaml")


def test_a_file_that_is_missing_or_not_text_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"policy: p\nowner: \xe9\n")
    with pytest.raises(PolicyError, match=r"latin\.yaml:2: is not UTF-8"):
        read_policy(tmp_path / "latin.yaml")


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"\xef\xbb\xbf" + BILLING.encode())
    assert read_policy(tmp_path / "p.yaml").name == "billing"


TESTS: list[tuple[str, str]] = [
    ("at: 2026-03-02T12:00:00", "must be a date and time with its offset"),
    ("at: 5", "must be a date and time with its offset"),
    ("action: 'a:*'", "must be one action"),
    ("expect: allow", "'expect' cannot be 'allow'"),
    ("rule: readd", "did you mean 'read'?"),
    ("reason: rule.non", "did you mean 'rule.none'?"),
    ("subject: {scope: [a]}", "subject has no 'scope'; did you mean 'scopes'?"),
    ("subject: {scopes: a}", "subject.scopes is a list of names"),
    ("subject: {kind: robot}", "subject.kind is one of human, workload, agent"),
    ("subject: {tenant: 5}", "subject.tenant is text"),
    ("subject: {issued_at: today}", "subject.issued_at must be a date and time"),
    ("subject: {authenticated_at: 5}", "subject.authenticated_at must be a date and time"),
    ("subject: {acr: 5}", "subject.acr is text"),
    ("subject: {auth_time: 5}", "subject has no 'auth_time'"),
    ("context: {time: now}", "context has no 'time'"),
    ("context: {tls: 1}", "context.tls is true or false"),
    ("resource: {name: x}", "has no key 'name'"),
    ('resource: {id: "a\\u200bb"}', "its resource must have a type and an id"),
    ('name: "a\\nb"', "must have a name of printable characters"),
]


@pytest.mark.parametrize(("line", "said"), TESTS)
def test_a_mistake_in_a_case_is_named(line: str, said: str) -> None:
    case = {"name": "c", "at": "2026-03-02T12:00:00Z", "action": "a", "expect": "deny"}
    case.pop(line.partition(":")[0], None)
    lines = [f"{key}: {value}" for key, value in case.items()] + [line]
    head = "tests:\n- " + "\n  ".join(lines) + "\n"
    found = problems_of(rules_document("- {rule: read, permit: a, when: always}", head))
    assert any(said in problem for problem in found), found
