"""A crowd of requests is let in a few at a time, and nobody is forgotten in the line."""

from __future__ import annotations

import asyncio

from inarch_server.http.turnstile import A_TURN, Turnstile

CROWD = 5 * A_TURN + 3


def test_others_in_the_event_loop_have_their_turn_while_a_crowd_enters() -> None:
    async def run() -> list[str]:
        turnstile, seen = Turnstile(), []

        async def visitor(number: int) -> None:
            await turnstile.enter()
            seen.append(str(number))

        visitors = [asyncio.create_task(visitor(i)) for i in range(CROWD)]
        while not all(task.done() for task in visitors):
            seen.append("stream")
            await asyncio.sleep(0)
        return seen

    seen = asyncio.run(run())
    assert [item for item in seen if item != "stream"] == [str(i) for i in range(CROWD)]
    between = "\n".join(seen).split("stream")
    assert max(len(entered.split()) for entered in between) <= A_TURN


def test_who_leaves_the_line_takes_nobodys_place() -> None:
    async def run() -> int:
        turnstile = Turnstile()
        visitors = [asyncio.create_task(turnstile.enter()) for _ in range(CROWD)]
        await asyncio.sleep(0)
        for task in visitors[A_TURN : 3 * A_TURN]:
            task.cancel()
        results = await asyncio.gather(*visitors, return_exceptions=True)
        await turnstile.enter()  # and it is still open for those who come later
        return sum(result is None for result in results)

    assert asyncio.run(asyncio.wait_for(run(), 10)) == CROWD - 2 * A_TURN
