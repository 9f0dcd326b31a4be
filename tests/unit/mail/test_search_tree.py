"""Bounds of the search tree."""

from __future__ import annotations

import pytest

from mailtwist.errors import ProtocolViolation
from mailtwist.mail.search import MAX_DEPTH, MAX_NODES, All, And, Node, Not, Or, check_bounds


def _deep(levels: int) -> Node:
    tree: Node = All()
    for _ in range(levels - 1):
        tree = Not(tree)
    return tree


def test_a_tree_within_the_bounds_passes() -> None:
    check_bounds(_deep(MAX_DEPTH))
    check_bounds(And((All(),) * (MAX_NODES - 1)))
    check_bounds(Or(All(), Not(All())))


@pytest.mark.parametrize(
    "tree",
    [_deep(MAX_DEPTH + 1), _deep(5000), And((All(),) * MAX_NODES)],
    ids=["deep", "very deep", "wide"],
)
def test_a_tree_beyond_them_is_refused(tree: Node) -> None:
    with pytest.raises(ProtocolViolation):
        check_bounds(tree)
