"""The thread in which coroutines of SSH run: an interrupt of the caller ends its coroutine, whenever it comes."""

from __future__ import annotations

import asyncio

import pytest

from prefect_stagegate.plugins.sftp.event_loop_thread import EventLoopThread


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("is_scheduled", [True, False])
def test_interrupt_while_scheduling_ends_the_coroutine(monkeypatch: pytest.MonkeyPatch, *, is_scheduled: bool) -> None:
    thread = EventLoopThread("loop")

    async def answer() -> str:
        return "here"

    async def write_for_ever() -> None:
        await asyncio.Event().wait()

    assert thread.run(answer()) == "here"
    loop = thread._loop
    assert loop
    schedule, interrupts = loop.call_soon_threadsafe, [Interrupted]

    def interrupted(callback: object) -> None:
        if is_scheduled or not interrupts:
            schedule(callback)  # type: ignore[arg-type]
        if interrupts:
            raise interrupts.pop()

    monkeypatch.setattr(loop, "call_soon_threadsafe", interrupted)
    with pytest.raises(Interrupted):
        thread.run(write_for_ever())
    assert thread.run(answer()) == "here"
    assert not asyncio.all_tasks(loop)
    thread.close()
