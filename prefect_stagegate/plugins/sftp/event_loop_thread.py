"""An event loop in a thread of its own, so that threads can use a client written for asyncio."""

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

Cleanup = Callable[[], Coroutine[Any, Any, None]]


class EventLoopThread:
    """The loop and its thread, which starts with the first coroutine and ends when this object is closed or collected.

    Args:
        name: The thread's name.
        cleanup: Makes the coroutine that frees what the others opened. It runs at the end, before coroutines that still
            run are cancelled. It must hold no reference to this object's owner, or that is never collected.
    """

    def __init__(self, name: str, cleanup: Cleanup | None = None) -> None:
        self._name = name
        self._cleanup = cleanup
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finalizer: weakref.finalize[..., EventLoopThread] | None = None
        self._closed = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for its result. An interrupt of the caller cancels the coroutine.

        Raises:
            SourceError: The loop is closed, or was closed meanwhile.
        """
        # A queue wakes the calling thread at far less cost than a future of `concurrent.futures`.
        ended, started = queue.SimpleQueue[asyncio.Task[T] | None](), list[asyncio.Task[T]]()

        def start() -> None:
            started.append(asyncio.create_task(coroutine))
            started[0].add_done_callback(ended.put)

        def cancel() -> None:
            for task in started:
                task.cancel()
            if not started:  # the interrupt came before the coroutine was scheduled
                coroutine.close()
                ended.put(None)

        loop: asyncio.AbstractEventLoop | None = None
        try:
            # Under the lock, so that the coroutine starts before `close` ends the loop, or not at all.
            with self._lock:
                loop = self._running()
                loop.call_soon_threadsafe(start)
            task = ended.get()
        except BaseException:
            if loop is None:
                coroutine.close()
                raise
            with suppress(RuntimeError):  # the loop has ended, and its tasks with it
                loop.call_soon_threadsafe(cancel)
                ended.get()  # the coroutine may hold the caller's buffer until it has ended
            raise
        assert task  # noqa: S101 - only `cancel` puts none
        try:
            return task.result()
        except asyncio.CancelledError as error:
            raise SourceError("The source was closed during the request") from error

    def close(self) -> None:
        """Run the clean-up, cancel coroutines that still run, and wait for the thread to end."""
        with self._lock:
            self._closed = True
            if self._finalizer:
                self._finalizer()

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop, started at first use. The caller holds the lock."""
        if self._closed:
            raise SourceError("The source is closed")
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=_serve, args=(self._loop, self._cleanup), name=self._name, daemon=True)
            thread.start()
            self._finalizer = weakref.finalize(self, _stop, self._loop, thread)
        return self._loop


def _serve(loop: asyncio.AbstractEventLoop, cleanup: Cleanup | None) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_shut_down(loop, cleanup))
    finally:
        loop.close()


async def _shut_down(loop: asyncio.AbstractEventLoop, cleanup: Cleanup | None) -> None:
    if cleanup:
        await cleanup()
    remaining = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in remaining:
        task.cancel()
    await asyncio.gather(*remaining, return_exceptions=True)
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(loop.stop)
    if thread is not threading.current_thread():  # the collector may run in the loop's own thread
        thread.join()
