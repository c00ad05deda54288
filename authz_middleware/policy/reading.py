"""Reads the shape of a document, node by node, and collects every problem instead of stopping at the first.

A reader answers None, or leaves out, what it could not read; the problem says where and what is accepted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from authz_middleware.errors import Problem
from authz_middleware.policy.nodes import Node
from authz_middleware.policy.wording import instead_of, listed, shown


class Reading:
    """One document being read."""

    def __init__(self, file: str, problems: list[Problem]) -> None:
        self._file = file
        self._problems = problems

    def problem(self, line: int, what: str) -> None:
        """Report a mistake on a line."""
        self._problems.append(Problem(f"{self._file}:{line}", what))

    def fields(
        self, node: Node, label: str, required: Collection[str], optional: Collection[str] = ()
    ) -> Mapping[str, Node]:
        """The entries of a mapping that has these keys and no others."""
        entries = self.mapping(node, label)
        accepted = (*required, *optional)
        for key, child in entries.items():
            if key not in accepted:
                self.problem(child.key_line, f"{label} has no key {shown(key)}; {instead_of(key, accepted)}")
        for key in required:
            if key not in entries and isinstance(node.value, dict):
                self.problem(node.line, f"{label} needs the key '{key}'")
        return {key: child for key, child in entries.items() if key in accepted}

    def mapping(self, node: Node, label: str) -> Mapping[str, Node]:
        """The entries of a mapping with any keys."""
        if isinstance(node.value, dict):
            return node.value
        self._refuse(node, label, "a mapping of keys to values")
        return {}

    def items(self, node: Node, label: str) -> list[Node]:
        """The items of a list."""
        if isinstance(node.value, list):
            return node.value
        self._refuse(node, label, "a list")
        return []

    def text(self, node: Node | None, label: str) -> str | None:
        """A text; a number or a word such as `true` has to be quoted to be one."""
        if node is None:
            return None
        if isinstance(node.value, str) and node.value:
            return node.value
        self._refuse(node, label, "a text that is not empty (in quotes, if it looks like a number or true/false)")
        return None

    def texts(self, node: Node, label: str) -> tuple[str, ...]:
        """A list of texts."""
        found = (self.text(item, f"each of {label}") for item in self.items(node, label))
        return tuple(text for text in found if text is not None)

    def flag(self, node: Node | None, label: str) -> bool | None:
        """`true` or `false`, nothing that merely counts as one."""
        if node is None or isinstance(node.value, bool):
            return None if node is None else node.value
        self._refuse(node, label, "true or false")
        return None

    def scalar(self, node: Node, label: str) -> Any:
        """A text, a number, true or false."""
        if isinstance(node.value, str | bool | int | float):
            return node.value
        self._refuse(node, label, "a text, a number, true or false")
        return None

    def choice(self, node: Node | None, label: str, choices: Collection[str]) -> str | None:
        """One of a set of words."""
        if node is None or (isinstance(node.value, str) and node.value in choices):
            return None if node is None else node.value
        self.problem(node.line, f"{label} cannot be {_found(node)}; {instead_of(node.value, choices)}")
        return None

    def _refuse(self, node: Node, label: str, accepted: str) -> None:
        self.problem(node.line, f"{label} must be {accepted}, not {_found(node)}")


def _found(node: Node) -> str:
    if isinstance(node.value, dict):
        return f"a mapping of {listed(list(node.value)[:5])}"
    if isinstance(node.value, list):
        return "a list"
    return "empty" if node.value is None else shown(node.value)
