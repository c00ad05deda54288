"""Gives the memory of large collections back bit by bit.

Dropping a hundred thousand rules at once is one call of the interpreter, and every other thread waits for its end. What
is taken out one by one lets a request in between.
"""

from __future__ import annotations

from typing import Any


def give_back(collection: list[Any] | dict[Any, Any]) -> None:
    """Empty a list or dictionary that nobody else uses."""
    if isinstance(collection, list):
        while collection:
            collection.pop()
    else:
        while collection:
            collection.popitem()
