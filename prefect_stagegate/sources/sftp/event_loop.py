"""An event loop in a thread of its own: how threads use a client that is written for asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from prefect_stagegate.errors import SourceError

T = TypeVar("T")

Ending = Callable[[], Coroutine[Any, Any, None]]


class LoopThread:
    """The loop and its thread, which starts with the first coroutine and ends when this is closed or forgotten.

    Args:
        name: The thread's.
        ending: Makes the coroutine that frees what the others opened; it runs when the end has come, before those that
            still run are cancelled. Whoever owns this thread must not be held by it, or it is never forgotten.
    """

    def __init__(self, name: str, ending: Ending | None = None) -> None:
        self._name = name
        self._ending = ending
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: weakref.finalize[..., LoopThread] | None = None
        self._closed = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. It is cancelled, and its end awaited, when this thread is interrupted.

        A queue wakes the thread: that costs far less than a future of `concurrent.futures`.

        Raises:
            SourceError: The loop is closed, or was closed meanwhile.
        """
        ended, started = queue.SimpleQueue[asyncio.Task[T]](), list[asyncio.Task[T]]()

        def start() -> None:
            started.append(asyncio.create_task(coroutine))
            started[0].add_done_callback(ended.put)

        def cancel() -> None:
            for task in started:
                task.cancel()

        try:
            # Under the lock, so that it starts before `close` ends the loop, or not at all.
            with self._lock:
                loop = self._running()
                loop.call_soon_threadsafe(start)
        except SourceError:
            coroutine.close()
            raise
        try:
            task = ended.get()
        except BaseException:
            with suppress(RuntimeError):  # the loop has ended, and its tasks with it
                loop.call_soon_threadsafe(cancel)
                ended.get()
            raise
        try:
            return task.result()
        except asyncio.CancelledError as error:
            raise SourceError("The source was closed meanwhile") from error

    def close(self) -> None:
        """Free what was opened, cancel what still runs, and wait for the thread's end."""
        with self._lock:
            self._closed = True
            if self._end:
                self._end()

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop; asked under the lock."""
        if self._closed:
            raise SourceError("The source is closed")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_serve, args=(self._loop, self._ending), name=self._name, daemon=True)
            thread.start()
            self._end = weakref.finalize(self, _stop, self._loop, thread)
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop, ending: Ending | None) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_wind_up(loop, ending))
    finally:
        loop.close()


async def _wind_up(loop: asyncio.AbstractEventLoop, ending: Ending | None) -> None:
    if ending:
        await ending()
    left = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():
        thread.join()
