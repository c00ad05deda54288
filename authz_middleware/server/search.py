"""The Search APIs of AuthZEN 1.0, section 8: which subjects, resources or actions that the policy names would be
permitted?

Each candidate is put to the engine like any other question, so nothing is answered that an evaluation would not permit.
Whom or what the policy does not name, and only its attributes could tell, a search cannot find.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from authz_middleware.decision import Decision, Reason
from authz_middleware.permission import Permission
from authz_middleware.question import Question
from authz_middleware.remote.messages.evaluation import MessageError
from authz_middleware.server.decider import Sitting
from authz_middleware.server.exchange import Reply, encode
from authz_middleware.server.page import Page
from authz_middleware.server.vocabulary import Vocabulary

Kind = Literal["subject", "resource", "action"]

MAX_EVALUATED: Final = 1000
"""Candidates that are decided on for one page; about as many as take ten milliseconds."""
MAX_WORK: Final = 1024 * 1024
"""At most so many candidates times bytes of the request: what it tells may be looked through for each of them."""
_PLACEHOLDER: Final = "x"

_MEMBERS: Final[Mapping[Kind, frozenset[str]]] = {
    "subject": frozenset({"subject", "action", "resource", "context", "page"}),
    "resource": frozenset({"subject", "action", "resource", "context", "page"}),
    "action": frozenset({"subject", "resource", "context", "page"}),
}


class Search(msgspec.Struct, frozen=True):
    """One kind of search. `candidates` are what the policy names, `ask` puts one of them into the question, and `show`
    is the entity that is answered for it."""

    kind: Kind
    candidates: Callable[[Vocabulary], Sequence[str]]
    ask: Callable[[Question, str], Question]
    show: Callable[[Mapping[str, Any], str], dict[str, Any]]

    def answer(self, asked: Mapping[str, Any], sitting: Sitting, *, most: int, size: int) -> Reply:
        """The answer to a request of so many bytes, of at most `most` results. Raises MessageError for what is not a
        search of this kind."""
        for name in asked:
            if name not in _MEMBERS[self.kind] and not sitting.is_lenient:
                raise MessageError(name[:64], "is not a known member")
        question = sitting.question_of(self._completed(asked))
        snapshot = sitting.in_force.snapshot
        page = Page.read(asked, self.kind, snapshot.revision, most=most, lenient=sitting.is_lenient)
        candidates = self.candidates(sitting.in_force.vocabulary)
        results: list[dict[str, Any]] = []
        index = page.start
        end = min(len(candidates), page.start + min(MAX_EVALUATED, max(1, MAX_WORK // size)))
        while index < end and len(results) < page.limit:
            candidate = candidates[index]
            if snapshot.evaluate(self.ask(question, candidate)).permit is True:
                results.append(self.show(asked, candidate))
            index += 1
        told = None if self.kind == "action" else question.action
        sitting.record(None, _searched(self.kind, sitting), told)
        return Reply(200, encode(page.answer(results, index, is_last=index >= len(candidates))))

    def _completed(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The evaluation request that this would be, with a placeholder for what is looked for. An id that the request
        gives there is ignored, as the specification has it."""
        request = {name: asked[name] for name in asked if name != "page"}
        if self.kind == "action":
            request["action"] = {"name": _PLACEHOLDER}
        elif isinstance(request.get(self.kind), Mapping):
            request[self.kind] = {**request[self.kind], "id": _PLACEHOLDER}
        return request


def _searched(kind: Kind, sitting: Sitting) -> Decision:
    """What the record says of a search: that it was let through, under which policy."""
    snapshot = sitting.in_force.snapshot
    return Decision(
        permit=True,
        reason=Reason.PERMITTED,
        policy=snapshot.name,
        owner=snapshot.owner,
        revision=snapshot.revision,
        serial=snapshot.serial,
        detail=f"search.{kind}",
    )


def _ask_subject(question: Question, candidate: str) -> Question:
    principal = msgspec.structs.replace(question.principal, subject=candidate)
    return msgspec.structs.replace(question, principal=principal)


def _ask_resource(question: Question, candidate: str) -> Question:
    return msgspec.structs.replace(question, resource=msgspec.structs.replace(question.resource, id=candidate))


def _ask_action(question: Question, candidate: str) -> Question:
    return msgspec.structs.replace(question, permission=Permission(action=candidate))


SUBJECTS: Final = Search(
    "subject",
    lambda vocabulary: vocabulary.subjects,
    _ask_subject,
    lambda asked, candidate: {"type": asked["subject"]["type"], "id": candidate},
)
RESOURCES: Final = Search(
    "resource",
    lambda vocabulary: vocabulary.resources,
    _ask_resource,
    lambda asked, candidate: {"type": asked["resource"]["type"], "id": candidate},
)
ACTIONS: Final = Search(
    "action",
    lambda vocabulary: vocabulary.actions,
    _ask_action,
    lambda _, candidate: {"name": candidate},
)
