"""An event loop in a thread of its own: how threads use a client that is written for asyncio."""

from __future__ import annotations

import asyncio
import queue
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from typing import Any, TypeVar

from prefect_stagegate.errors import SourceError

T = TypeVar("T")

Ending = Callable[[], Coroutine[Any, Any, None]]
Give = Callable[[T], Awaitable[None]]
"""Hands something over, and waits until what was handed over before it was taken."""


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

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the loop.

        Raises:
            SourceError: The loop is closed.
        """
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._running())
        except (RuntimeError, SourceError):
            coroutine.close()
            raise

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result. It is cancelled when this thread is interrupted.

        A queue wakes the thread: that costs far less than the future that `submit` gives.

        Raises:
            SourceError: The loop is closed.
            CancelledError: It was closed meanwhile.
        """
        ended, started = queue.SimpleQueue[asyncio.Task[T]](), list[asyncio.Task[T]]()

        def start() -> None:
            started.append(asyncio.create_task(coroutine))
            started[0].add_done_callback(ended.put)

        def cancel() -> None:
            for task in started:
                task.cancel()

        try:
            loop = self._running()
            loop.call_soon_threadsafe(start)
        except (RuntimeError, SourceError):
            coroutine.close()
            raise
        try:
            task = ended.get()
        except BaseException:
            with suppress(RuntimeError):  # the loop has ended, and its tasks with it
                loop.call_soon_threadsafe(cancel)
            raise
        try:
            return task.result()
        except asyncio.CancelledError as error:
            raise CancelledError from error

    def stream(self, produce: Callable[[Give[T]], Coroutine[Any, Any, None]]) -> Iterator[T]:
        """What a coroutine hands over, while it goes on; it is never more than two ahead. Then what it raises.

        Args:
            produce: Makes the coroutine. It is cancelled when the iterator is closed.
        """
        taken: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        room = asyncio.Semaphore(1)

        async def give(one: T) -> None:
            await room.acquire()
            taken.put(one)

        future = self.submit(produce(give))
        future.add_done_callback(lambda _: taken.put(None))
        try:
            while (one := taken.get()) is not None:
                self._running().call_soon_threadsafe(room.release)
                yield one
            future.result()
        finally:
            future.cancel()

    def close(self) -> None:
        """Free what was opened, cancel what still runs, and wait for the thread's end."""
        with self._lock:
            self._closed = True
            if self._end:
                self._end()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
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
