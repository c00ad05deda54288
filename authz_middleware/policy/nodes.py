"""YAML text as a tree of nodes that remember their lines.

The dialect is the part of YAML 1.2 that means the same to everyone: mappings with text keys, lists, and the
scalars of the core schema. Anchors, aliases and tags are refused: with them a small file can stand for a huge one, or
one line can change what a far one means. Size and depth are bounded.
"""

from __future__ import annotations

import io
import math
import re
from typing import Any, Final

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from authz_middleware.errors import Problem

MAX_CHARACTERS: Final = 16 * 1024 * 1024
MAX_DEPTH: Final = 32

# YAML 1.2 core schema (section 10.3.2). `yes`, `on` and `08:00` are text.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FRACTION: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_OTHER_NUMBER: Final = re.compile(r"[-+]?[0-9]{19,}|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class Node(msgspec.Struct, frozen=True, gc=False):
    """One value and the line it starts on (1-based). `key_line` is the line of its key, in a mapping.

    `value` is None, a bool, an int, a float, a str, a list of nodes, or a dict of nodes by key.
    """

    value: Any
    line: int
    key_line: int = 0

    @property
    def plain(self) -> Any:
        """The value with the nodes taken out, as JSON has it."""
        if isinstance(self.value, dict):
            return {key: node.plain for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain for node in self.value]
        return self.value


class Tree(msgspec.Struct):
    """What was read: the root node, if there is one, and everything that is wrong with the text."""

    root: Node | None
    problems: list[Problem]


def read_nodes(text: str, file: str) -> Tree:
    """Read one YAML document. Never raises: what is wrong is in `problems`, at `file:line`."""
    tree = Tree(None, [])
    if len(text) > MAX_CHARACTERS:
        tree.problems.append(Problem(file, f"is longer than {MAX_CHARACTERS} characters"))
        return tree
    builder = _Builder(file, tree)
    try:
        # A stream is taken in small pieces, so that other threads run while a large policy is read.
        for event in YAML(typ="safe", pure=True).parse(io.StringIO(text)):
            if not builder.take(event):
                break
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        builder.problem(line, f"is not YAML: {error.problem or 'cannot be read'}")
    except YAMLError:
        builder.problem(1, "is not YAML: has a character that YAML does not allow")
    if tree.root is None and not tree.problems:
        builder.problem(1, "is empty")
    return tree


class _Builder:
    """Puts the parser's events together, one open collection on the stack for each level of nesting."""

    def __init__(self, file: str, tree: Tree) -> None:
        self._file = file
        self._tree = tree
        self._open: list[_Collection] = []
        self._documents = 0

    def problem(self, line: int, what: str) -> None:
        self._tree.problems.append(Problem(f"{self._file}:{line}", what))

    def take(self, event: Event) -> bool:
        """Take one event; False when reading on makes no sense."""
        line = event.start_mark.line + 1
        if isinstance(event, DocumentStartEvent):
            return self._start_document(event, line)
        if isinstance(event, NodeEvent):
            self._refuse_references(event, line)
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            if len(self._open) == MAX_DEPTH:
                self.problem(line, f"is nested deeper than {MAX_DEPTH} levels")
                return False
            self._open.append(_Collection(line, isinstance(event, MappingStartEvent)))
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            closed = self._open.pop()
            self._add(Node(closed.value, closed.line))
        elif isinstance(event, ScalarEvent):
            self._add(Node(self._scalar(event, line), line))
        elif isinstance(event, AliasEvent):
            self._add(Node(None, line))
        return True

    def _start_document(self, event: DocumentStartEvent, line: int) -> bool:
        self._documents += 1
        if self._documents > 1:
            self.problem(line, "starts a second document; a file holds one policy")
            return False
        if event.version not in (None, (1, 2)):
            self.problem(line, "asks for another version of YAML; only 1.2 is read")
        return True

    def _refuse_references(self, event: NodeEvent, line: int) -> None:
        if isinstance(event, AliasEvent) or event.anchor is not None:
            self.problem(line, "uses an anchor or alias (& or *); write the value out, and quote a text that starts so")
        elif getattr(event, "tag", None) is not None:
            self.problem(line, "uses a tag (!); quote a text that starts so")

    def _add(self, node: Node) -> None:
        if not self._open:
            self._tree.root = node
            return
        collection = self._open[-1]
        if isinstance(collection.value, list):
            collection.value.append(node)
        elif collection.key is None:
            collection.key = node
        else:
            self._add_entry(collection.value, collection.key, node)
            collection.key = None

    def _add_entry(self, entries: dict[str, Node], key: Node, node: Node) -> None:
        if not isinstance(key.value, str):
            self.problem(key.line, "has a key that is not text; put it in quotes")
        elif key.value in entries:
            first = entries[key.value].key_line
            self.problem(key.line, f"gives {key.value!r} again; it was first given on line {first}")
        else:
            entries[key.value] = Node(node.value, node.line, key.line)

    def _scalar(self, event: ScalarEvent, line: int) -> Any:
        text = str(event.value)
        if event.style is not None or not event.implicit[0]:
            return text
        if text in _NULL:
            return None
        if text in _BOOLEAN:
            return _BOOLEAN[text]
        if _WHOLE.fullmatch(text):
            return int(text)
        number = float(text) if _FRACTION.fullmatch(text) else None
        if _OTHER_NUMBER.fullmatch(text) or (number is not None and not math.isfinite(number)):
            self.problem(
                line,
                f"has the number {text[:40]}; write a finite decimal number of at most 18 digits, or quote a text",
            )
            return None
        return text if number is None else number


class _Collection:
    """A mapping or list whose end has not been read yet."""

    def __init__(self, line: int, is_mapping: bool) -> None:
        self.line = line
        self.value: dict[str, Node] | list[Node] = {} if is_mapping else []
        self.key: Node | None = None
