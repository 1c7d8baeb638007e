"""What a spare CLI does before its first prompt: whose does it, and that nobody sees it."""

from __future__ import annotations

import asyncio
import json

import pytest

from fleets import Fleet, filled, spares, until
from vespera_agent_spawner import Outcome

VERSION = {"subtype": "get_binary_version"}
WORK = {"subtype": "get_context_usage", "detail": "summary"}


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("2.1.330", [VERSION, WORK]),
        ("2.2", [VERSION, WORK]),
        ("10.0.0", [VERSION, WORK]),
        # It would have the service count each part.
        ("2.1.329", [VERSION]),
        ("2.0.1000", [VERSION]),
        ("", [VERSION]),
        ("2.1.x", [VERSION]),
        ("9" * 5000, [VERSION]),
        ("\u0662.1.330", [VERSION]),
    ],
)
def test_who_can_estimate_is_asked(fleet: Fleet, version: str, told: list[object]) -> None:
    how = f"version {version}"

    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            _first = await sup.spawn(fleet.config(how=how))
            await until(lambda: bool(spares(sup)) and spares(sup)[0].readying is not None)
            spare = spares(sup)[0]
            await until(lambda: spare.readying.done)
            (result,) = await sup.run([fleet.config("model", how)])
            assert spare not in spares(sup)
            # The first one is what every session begins with.
            assert json.loads(result.result or "")[1:] == told

    asyncio.run(main())


def test_one_that_does_not_know_the_question_is_spared_the_next(fleet: Fleet) -> None:
    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            _first = await sup.spawn(fleet.config())
            await until(lambda: bool(spares(sup)) and spares(sup)[0].readying is not None)
            await until(lambda: spares(sup)[0].readying.done)
            (result,) = await sup.run([fleet.config("model")])
            assert json.loads(result.result or "")[1:] == [VERSION]

    asyncio.run(main())


def test_whoever_claims_it_meanwhile_sees_nothing_of_it(fleet: Fleet) -> None:
    how = "version 2.1.330"

    async def main() -> None:
        async with fleet.supervisor(warm=1) as sup:
            _first = await sup.spawn(fleet.config(how=how))
            for number in range(8):
                await filled(sup, 1)
                agent = await sup.spawn(fleet.config(f"echo {number}", how))
                kinds = [event.kind async for event in agent]
                result = await agent.result()
                assert (result.outcome, result.result) == (Outcome.COMPLETED, f"echo {number}")
                assert kinds == ["system", "assistant", "result"]

    asyncio.run(main())
    assert fleet.gone()
