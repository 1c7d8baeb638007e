"""Responsible for finding a circle among the dependencies of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

__all__ = ["find_cycle"]


def find_cycle(needs: Mapping[str, Sequence[str]]) -> list[str] | None:
    """A path from a task back to itself (first and last are equal), or None.

    It walks without recursion: a chain of tasks may be longer than Python's stack.
    """
    done: set[str] = set()
    for root in needs:
        if root in done:
            continue
        path = [root]
        on_path = {root}
        branches: list[Iterator[str]] = [iter(needs[root])]
        while branches:
            following = next(branches[-1], None)
            if following is None:
                branches.pop()
                left = path.pop()
                on_path.discard(left)
                done.add(left)
            elif following in on_path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                path.append(following)
                on_path.add(following)
                branches.append(iter(needs.get(following, ())))
    return None
