"""AuthZEN's interoperability scenario "todo", put to a real process over its API: every published case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from authz_middleware.server.metadata import EVALUATION, EVALUATIONS
from tests.support.decision_point import DecisionPointProcess

VECTORS = Path(__file__).parents[1] / "vectors" / "authzen"
TODO: dict[str, Any] = json.loads((VECTORS / "todo-1_0-02.json").read_text())
RESPONSE_SCHEMA = json.loads((VECTORS / "evaluation-response.schema.json").read_text())


def todo_policy() -> str:
    """The interoperability scenario "todo": viewers read, editors keep their own, an admin and an evil genius more."""
    ids = {case["request"]["subject"]["id"] for case in TODO["evaluation"]}
    rick, morty, summer, *_ = sorted(ids)
    own = {morty: "morty@the-citadel.com", summer: "summer@the-smiths.com"}
    rules = [
        "  - {rule: everybody-reads, permit: [can_read_user, can_read_todos], when: always}",
        f"  - {{rule: makers, permit: can_create_todo, when: {{subject.id: {{in: [{rick}, {morty}, {summer}]}}}}}}",
        f"  - {{rule: evil-genius, permit: can_update_todo, when: {{subject.id: {rick}}}}}",
        f"  - {{rule: admin, permit: can_delete_todo, when: {{subject.id: {rick}}}}}",
    ]
    rules += [
        f"  - {{rule: own-{number}, permit: [can_update_todo, can_delete_todo], "
        f"when: {{subject.id: {subject}, resource.ownerID: {mail}}}}}"
        for number, (subject, mail) in enumerate(own.items())
    ]
    head = "policy: todo\nowner: o@example.com\ninputs:\n  resource.ownerID: {from: application}\nrules:\n"
    return head + "\n".join(rules) + "\n"


@pytest.mark.capability("C29")
def test_every_case_of_the_interoperability_scenario_is_decided_as_expected(tmp_path: Path) -> None:
    assert (len(TODO["evaluation"]), len(TODO["evaluations"])) == (40, 3)
    with DecisionPointProcess(tmp_path, todo_policy()) as process, httpx.Client(base_url=process.url) as client:
        for case in TODO["evaluation"]:
            answer = client.post(EVALUATION, json=case["request"])
            jsonschema.validate(answer.json(), RESPONSE_SCHEMA)
            assert (answer.status_code, answer.json()["decision"]) == (200, case["expected"]), case
        for case in TODO["evaluations"]:
            decided = client.post(EVALUATIONS, json=case["request"]).json()["evaluations"]
            assert [{"decision": item["decision"]} for item in decided] == case["expected"], case


@pytest.mark.capability("C29")
def test_the_example_of_the_published_schema_is_a_question_that_is_decided(tmp_path: Path) -> None:
    schema = json.loads((VECTORS / "evaluation-request.schema.json").read_text())
    policy = "policy: accounts\nowner: o@example.com\nrules:\n  - {rule: all-read, permit: can_read, when: always}\n"
    with DecisionPointProcess(tmp_path, policy) as process, httpx.Client(base_url=process.url) as client:
        for example in schema["examples"]:
            answer = client.post(EVALUATION, json=example)
            assert (answer.status_code, answer.json()["decision"]) == (200, True)
