"""The order of those who wait for a place, beside a sorted list of them."""

from __future__ import annotations

import itertools
import random

import pytest

from vespera_agent_spawner.waiting_line import Entry, Line, Ticket


def entry(priority: int, number: int) -> Entry:
    return -priority, number, Ticket(0, lambda error: None)


def test_whoever_has_the_higher_priority_comes_first_then_whoever_came_first() -> None:
    line = Line()
    first, second, urgent = entry(0, 1), entry(0, 2), entry(5, 3)
    for one in (first, second, urgent):
        line.join(one)
    assert (line.first, len(line)) == (urgent, 3)
    assert [line.pop() for _ in range(3)] == [urgent, first, second]
    assert (line.first, len(line)) == (None, 0)


def test_nobody_leaves_an_empty_line() -> None:
    with pytest.raises(IndexError):
        Line().pop()


def test_whoever_comes_back_finds_its_place_again() -> None:
    line = Line()
    entries = [entry(0, number) for number in range(6)]
    for one in entries:
        line.join(one)
    gone = [line.pop() for _ in range(4)]
    for one in (gone[2], gone[0], gone[3], gone[1]):
        line.join(one)
    assert line.first is entries[0]
    assert [line.pop() for _ in range(6)] == entries


@pytest.mark.parametrize("seed", range(20))
def test_it_is_a_sorted_list_whatever_happens(seed: int) -> None:
    draw = random.Random(seed)
    line, numbers = Line(), itertools.count()
    expected: list[Entry] = []
    gone: list[Entry] = []
    for _ in range(2000):
        act = draw.random()
        if act < 0.5 or not expected:
            one = entry(draw.choice([0, 0, 0, 1, 7, -3]), next(numbers))
            line.join(one)
            expected.append(one)
        elif act < 0.75:
            gone.append(line.pop())
            assert gone[-1] == min(expected)
            expected.remove(gone[-1])
        elif act < 0.9 and gone:
            one = gone.pop(draw.randrange(len(gone)))
            if one[2].waits:
                line.join(one)
                expected.append(one)
        else:
            ticket = draw.choice(expected)[2]
            if ticket.waits:
                line.withdraw(ticket)
            # Those who wait no more may have left.
            there = set(map(id, line))
            assert all(id(one) in there for one in expected if one[2].waits)
            expected = [one for one in expected if id(one) in there]
        assert line.first == (min(expected) if expected else None)
        assert len(line) == len(expected)
    assert list(line) == sorted(expected)
    assert list(line.waiting()) == [one[2] for one in sorted(expected) if one[2].waits]


def test_those_who_wait_no_more_do_not_pile_up_behind_one_who_waits_for_hours() -> None:
    line = Line()
    line.join(entry(1, 0))
    for number in range(1, 10_000):
        one = entry(0, number)
        line.join(one)
        line.withdraw(one[2])
    assert len(line) < 200
    assert len(list(line.waiting())) == 1
