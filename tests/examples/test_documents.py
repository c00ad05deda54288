"""README and docs say what the code says: each block comes from a file that runs, each list is complete."""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from authz_middleware import Reason, SettingsError
from authz_middleware.answer import answer_for
from authz_middleware.decision import Decision
from authz_middleware.identity.claims.principals import CLAIM_NAMES, PRESETS
from authz_middleware.identity.problem import CredentialDetail
from authz_middleware.policy.compiler import compile_policy
from authz_middleware.policy.conditions import MATCHERS, NESTS
from authz_middleware.policy.document import parse_policy
from authz_middleware.policy.inputs import BUILT_IN
from authz_middleware.record.event import Event, Explanation
from authz_middleware.record.schema import json_schema
from authz_middleware.remote.failure import FailureKind
from authz_middleware.remote.query import RemoteQuery
from authz_middleware.resource import Resource
from authz_middleware.revocation.entry import Scope
from authz_middleware.revocation.store import Trouble
from authz_middleware.server.settings import ServerSettings
from authz_middleware.settings import Settings
from tests.support.questions import question

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
POLICY = (ROOT / "docs" / "policy.md").read_text()
SETTINGS = (ROOT / "docs" / "settings.md").read_text()
RECORDS = (ROOT / "docs" / "records.md").read_text()
OUTAGES = (ROOT / "docs" / "outages.md").read_text()
DECISION_POINTS = (ROOT / "docs" / "decision-points.md").read_text()
SETTINGS_PAGES = ("settings.md", "decision-points.md", "outages.md")


class Block(NamedTuple):
    document: str
    origin: str | None
    language: str
    text: str


def _blocks() -> Iterator[Block]:
    for document in DOCUMENTS:
        found = re.finditer(r"(?:<!-- (.+?) -->\n)?```(\w+)\n(.*?)```$", document.read_text(), re.DOTALL | re.MULTILINE)
        yield from (Block(document.name, *match.groups()) for match in found)


BLOCKS = list(_blocks())
COPIES = [block for block in BLOCKS if block.origin and block.origin.startswith("from: ")]
POLICIES = [block for block in BLOCKS if block.language == "yaml" and block.text.startswith("policy:")]


def _names(blocks: list[Block]) -> list[str]:
    return [f"{block.document}:{block.text.strip().splitlines()[0]}" for block in blocks]


@pytest.mark.parametrize("block", COPIES, ids=_names(COPIES))
def test_a_copied_block_is_in_its_file(block: Block) -> None:
    assert block.origin
    text = (ROOT / block.origin.removeprefix("from: ")).read_text()
    assert block.text in text or textwrap.dedent(block.text) in text


def test_every_block_of_the_readme_says_where_it_is_from() -> None:
    assert [block.text for block in BLOCKS if block.document == "README.md" and not block.origin] == []
    assert len(COPIES) > 8


@pytest.mark.parametrize("block", POLICIES, ids=_names(POLICIES))
def test_a_policy_in_the_docs_compiles(block: Block) -> None:
    compile_policy(parse_policy(block.text, block.document))


def test_the_matchers_of_the_docs_are_those_of_the_policy_language() -> None:
    table = POLICY.split("## Matchers")[1].split("A window")[0]
    shown = {word for row in re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)}
    assert shown == {*MATCHERS, *NESTS}


MATCHER_ROWS = re.findall(r"^\| [^|]+ \| [^|]+ \| `(\{.+\})` \|$", POLICY, re.MULTILINE)


@pytest.mark.parametrize("matcher", MATCHER_ROWS)
def test_a_matcher_of_the_docs_compiles(matcher: str) -> None:
    name = "context.time" if "between" in matcher else "resource.x" if "has" not in matcher else "subject.roles"
    text = f"""
policy: p
owner: o
inputs: {{resource.x: {{from: application}}, subject.limit: {{from: token}}}}
rules: [{{rule: r, permit: a, when: {{{name}: {matcher}}}}}]
"""
    compile_policy(parse_policy(text, "docs/policy.md"))


def test_the_built_in_inputs_of_the_docs_are_those_there_are() -> None:
    table = POLICY.split("These are always there")[1].split("Everything else")[0]
    shown = {
        name for row in re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)
    }
    assert shown == set(BUILT_IN)


def test_every_key_of_the_settings_is_in_the_docs() -> None:
    bogus: dict[str, Any] = {"bogus": 1}
    handlers = {"handler": bogus, "public": {"public": bogus}}
    inner = ("breaker", "client_certificate", "metadata_keys", "probe", "spiffe")
    remote = {**bogus, **dict.fromkeys(inner, bogus), "credential": {**bogus, "client_credentials": bogus}}
    actions = {mode: {**bogus, "mode": mode} for mode in ("degrade", "cached")}
    tables = dict.fromkeys(("app", "policy", "decision_log", "dpop", "protected_resource"), bogus)
    choice = {**bogus, "mode": "last_known"}
    feeds = {"status_lists": [bogus], "lists": [bogus], "transmitters": [bogus]}
    revocations = {**bogus, **feeds, "redis": bogus, "on_unavailable": {**bogus, "default": choice}}
    with pytest.raises(SettingsError) as caught:
        Settings.from_mapping(
            {
                **bogus,
                **tables,
                "remote": remote,
                "issuers": [{**bogus, "introspection": bogus}, {**bogus, "jwks_uri": "https://x.example/"}],
                "trust_domains": [bogus],
                "proxies": {**bogus, "client_certificate": bogus},
                "certificates": {"x": bogus},
                "revocations": revocations,
                "handlers": handlers,
                "fallback": {**bogus, "actions": actions},
            }
        )
    accepted = [re.search(r"accepted here: (.*)", problem.what) for problem in caught.value.problems]
    keys = {key for match in accepted if match for key in match[1].split(", ")}
    assert len(keys) > 140
    shown = r"`{0}`|^##+ (?:\w+\.)?{0}$|{0} ="
    assert {key for key in keys if not re.search(shown.format(key), SETTINGS, re.MULTILINE)} == set()


def test_every_key_of_the_decision_points_settings_is_in_the_docs() -> None:
    bogus = {"?": 1}
    with pytest.raises(SettingsError) as caught:
        ServerSettings.from_mapping({**bogus, **dict.fromkeys(("server", "tls", "callers"), bogus)}, ROOT)
    accepted = [re.search(r"accepted here: (.*)", problem.what) for problem in caught.value.problems]
    keys = {key for match in accepted if match for key in match[1].split(", ")}
    assert len(keys) > 20
    shown = r"`(?:\w+\.)?{0}`|^\[+{0}\]"
    assert {key for key in keys if not re.search(shown.format(key), DECISION_POINTS, re.MULTILINE)} == set()


def test_the_settings_of_the_docs_can_be_read() -> None:
    blocks = [block for block in BLOCKS if block.document in SETTINGS_PAGES and block.language == "toml"]
    tables = [tomllib.loads(block.text) for block in blocks]
    whole = next(table for table in tables if "app" in table)
    parts = [table for table in tables if table is not whole]
    assert len(parts) > 15
    issuer = {**whole["issuers"][0], "issuer": "https://idp.example.com/"}
    store = {"store": "file:revocations.db", "on_unavailable": {"default": "deny"}}
    for part in parts:
        if "server" in part:
            ServerSettings.from_mapping(part, ROOT)
            continue
        if "store" not in part.get("revocations", store):  # an excerpt
            part["revocations"] = {**store, **part["revocations"]}
        part["remote"] = {"url": "https://pdp.internal", **part.get("remote", {})}  # likewise
        Settings.from_mapping({**whole, "issuers": [issuer], **part})


def test_every_kind_of_failure_is_in_the_docs() -> None:
    table = OUTAGES.split("## Failures of the call")[1].split("## Health")[0]
    shown = {word for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)}
    assert {kind.value for kind in FailureKind} - shown == set()


def test_every_detail_of_a_failure_is_in_the_docs() -> None:
    named = r'RemoteFailure\(\s*FailureKind\.\w+,\s*"([a-z_.]+)"'
    sources = [path.read_text() for path in (ROOT / "authz_middleware" / "remote").rglob("*.py")]
    details = {detail for source in sources for detail in re.findall(named, source)}
    assert len(details) > 40
    assert {detail for detail in details if f"`{detail}`" not in OUTAGES} == set()


def test_the_question_of_the_docs_is_the_one_that_is_asked() -> None:
    (block,) = [block for block in BLOCKS if block.origin == "question"]
    invoice = Resource("invoice", "17", {"amount": 12.5, "tenant": "acme"})
    asked = question(claims={}, scopes=frozenset(), clearance=None, transaction=None, resource=invoice)
    assert json.loads(block.text) == json.loads(RemoteQuery.of(asked, None).body)


def test_every_reason_is_in_the_docs_with_its_status() -> None:
    shown = dict(re.findall(r"^\| `([a-z.]+)` \| (\d*) ?\| ", RECORDS.split("## Reasons")[1], re.MULTILINE))
    permits = {Reason.PERMITTED, Reason.PUBLIC, Reason.DEGRADED, Reason.CACHED}
    expected = {
        reason.value: ""
        if reason in permits
        else str(answer_for(Decision(permit=False, reason=reason), "id", retry_after=1.0).status)
        for reason in Reason
    }
    assert shown == expected


def test_every_detail_of_a_refused_credential_is_in_the_docs() -> None:
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    assert [detail.value for detail in CredentialDetail if f"`{detail.value}`" not in pages] == []


def test_every_trouble_of_a_store_of_revocations_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "revocation.md").read_text()
    assert [trouble.value for trouble in Trouble if f"`{trouble.value}`" not in page] == []
    assert [scope.value for scope in Scope if f"| `{scope.value}` |" not in page] == []


def test_every_claim_map_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "tokens.md").read_text()
    assert [name for name in (*PRESETS, *CLAIM_NAMES) if f"`{name}`" not in page] == []


def test_every_member_of_a_record_is_in_the_docs() -> None:
    members = [*Event.__struct_fields__, *(f"authz.{name}" for name in Explanation.__struct_fields__)]
    members.remove("authz")
    assert [name for name in members if f"`{name}`" not in RECORDS] == []


def test_the_record_of_the_readme_fits_the_schema() -> None:
    (record,) = [block for block in BLOCKS if block.origin == "record"]
    jsonschema.Draft202012Validator(json_schema()).validate(json.loads(record.text))


def test_the_refusal_of_the_readme_is_what_a_client_gets() -> None:
    (block,) = [block for block in BLOCKS if block.origin and block.origin.startswith("refusal: ")]
    head, body = block.text.strip().split("\n\n")
    decision = Decision(permit=False, reason=Reason(block.origin.removeprefix("refusal: ")))  # type: ignore[union-attr]
    answer = answer_for(decision, json.loads(body)["decision_id"], retry_after=1.0)
    assert head.splitlines() == [f"HTTP/1.1 {answer.status}", *(f"{name}: {value}" for name, value in answer.headers)]
    assert body == answer.body.decode()


def test_the_readme_begins_with_the_two_commands_and_make_knows_all_it_names() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"make ([a-z-]+)", README)
    assert named[:2] == ["demo", "test"]
    assert set(named) <= set(targets)


def test_every_capability_in_the_readme_has_a_test_that_says_it_proves_it() -> None:
    claimed = set(re.findall(r"^\| (C\d+) \|", README, re.MULTILINE))
    marks = (
        mark
        for path in (ROOT / "tests").rglob("*.py")
        for mark in re.findall(r"capability\(([^)]*)\)", path.read_text())
    )
    proven = {name for mark in marks for name in re.findall(r'"(C\d+)"', mark)}
    assert len(claimed) > 20
    assert claimed - proven == set()


def test_every_promise_has_a_test_that_holds_the_project_to_it() -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("*.py")]
    held = {name for text in texts for name in re.findall(r'mark\.promise\("(P\d+)"\)', text)}
    assert held == {f"P{number}" for number in range(1, 11)}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []
