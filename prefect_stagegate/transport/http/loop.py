"""One thread that runs all requests of a transfer: libcurl's multi interface over epoll.

    submit / supply ──→ add the handle ──→ libcurl: connect, send, receive ──→ complete ──→ done(exchange)

epoll, because `select` can't wait for descriptors above 1,024 and libcurl's own `perform` costs 8 % more. Code below
runs in the loop's thread unless it says otherwise: it needs no locks, and must not block.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
import weakref
from collections import defaultdict, deque
from functools import cached_property, partial
from typing import Any

import pycurl

from prefect_stagegate.errors import StagegateError, UsageError
from prefect_stagegate.transport.event_loop import EventLoop
from prefect_stagegate.transport.http.exchange import USER_AGENT, Exchange
from prefect_stagegate.transport.http.messages import Client, Proxies
from prefect_stagegate.transport.http.proxies import Proxy, proxy_for
from prefect_stagegate.transport.http.request_policy import (
    ALLOW_HINT,
    CONNECT_SECONDS,
    ForbiddenAddress,
    UrlOrigin,
    blocked_address,
    origin_of,
    refusal,
)
from prefect_stagegate.transport.http.sockets import Sockets, shut_down
from prefect_stagegate.transport.http.trust import trusted_authorities

RECEIVE_BUFFER = 512 << 10
"""Bytes that libcurl receives at a time."""
LOOK_SECONDS = 1.0
"""Longest time between two searches for silent servers; a fourth of the idle time where that is less."""
EVENTS = 256
"""Descriptors that one turn of the loop handles."""
_READABLE, _WRITABLE, _FAILED = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR | select.EPOLLHUP

log = logging.getLogger(__name__)

_ProxyKey = tuple[UrlOrigin, Proxies]
"""A request's origin, and the environment's proxy settings."""


class _Slot:
    """A libcurl handle, the exchange that it serves, and what its callbacks need."""

    __slots__ = ("bytes_moved", "client", "exchange", "free", "handle", "moved")

    def __init__(self, handle: pycurl.Curl, client: Client, free: list[_Slot]) -> None:
        self.handle, self.client, self.free = handle, client, free
        """`free`: the slots of its client that serve no exchange now."""
        self.exchange: Exchange | None = None
        self.bytes_moved, self.moved = 0, 0.0
        """Bytes of the bodies at the last look, and the time at which they were last seen to grow."""


class Loop(EventLoop):
    """Runs the requests of one transfer, or of all blocking calls of a process."""

    exchange = Exchange
    """Makes what it runs, for callers that must not import this module before they need it."""

    def __init__(self, name: str, *, room: int, **calls: Any) -> None:
        super().__init__(name, room=room, **calls)
        self._epoll = select.epoll()
        self._masks: dict[int, int] = {}
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Not closed at the loop's end: a late `call` would write to another file that got the same number.
        weakref.finalize(self, os.close, self._wake)
        self._epoll.register(self._wake, _READABLE)
        self._timer: float | None = None
        self._allowed: frozenset[str] | None = None
        self._free: defaultdict[Client, list[_Slot]] = defaultdict(list)
        self._client: Client | None = None
        self._slots: list[_Slot] = []
        """Those of `_client` that serve no exchange now."""
        self._under_way: dict[pycurl.Curl, _Slot] = {}
        self._waiting: deque[Exchange] = deque()
        self._resolving: defaultdict[_ProxyKey, list[Exchange]] = defaultdict(list)
        """Exchanges that wait for DNS; they count as under way."""
        self._proxies: dict[_ProxyKey, Proxy | StagegateError | None] = {}
        self._looking = False
        """Whether the next search for silent servers is scheduled."""
        self._received = 0

    @cached_property
    def _multi(self) -> pycurl.CurlMulti:
        """Made for the first request: a transfer from folders has none."""
        multi = pycurl.CurlMulti()
        # As many kept connections as requests at a time: libcurl's own bound grows with each handle.
        multi.setopt(pycurl.M_MAXCONNECTS, self.room)
        multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        return multi

    @cached_property
    def _sockets(self) -> Sockets:
        return Sockets()

    def received_so_far(self) -> int:
        """Received bytes of bodies, those of failed requests included."""
        return self._received + sum(slot.exchange.received for slot in self._under_way.values() if slot.exchange)

    def submit(self, exchange: Exchange) -> None:
        """Add an exchange. From another thread only by `call`."""
        self._waiting.append(exchange)

    def cancel(self, exchange: Exchange) -> None:
        """End an exchange without its `done`."""
        for resolving in self._resolving.values():
            if exchange in resolving:
                resolving.remove(exchange)
        if exchange in self._waiting:
            self._waiting.remove(exchange)
        elif exchange.handle in self._under_way:
            # Removed before it is closed: libcurl forbids closing a handle that the multi handle still uses.
            self._multi.remove_handle(exchange.handle)
            self._under_way.pop(exchange.handle).handle.close()

    def _wake_up(self) -> None:
        # The loop's own thread looks at everything again before it waits.
        if not self.is_here():
            os.eventfd_write(self._wake, 1)

    def _turn(self) -> None:
        self._start_waiting()
        for descriptor, events in self._epoll.poll(self._timeout(), EVENTS):
            if descriptor == self._wake:
                os.eventfd_read(descriptor)
            else:
                action = pycurl.CSELECT_IN if events & _READABLE else 0
                action |= pycurl.CSELECT_OUT if events & _WRITABLE else 0
                action |= pycurl.CSELECT_ERR if events & _FAILED else 0
                self._multi.socket_action(descriptor, action)
        if self._timer is not None and self._timer <= time.monotonic():
            # Before the call, during which libcurl may set the next timer.
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._run_later()
        self._run_calls()
        if self._under_way:
            self._complete_ended()
        if self._turned:
            self._turned()

    def _timeout(self) -> float:
        """Seconds that epoll may wait; -1.0 for no limit."""
        moments = [seconds for seconds in (super()._timeout(), self._until_timer()) if seconds is not None]
        return min(moments, default=-1.0)

    def _until_timer(self) -> float | None:
        return None if self._timer is None else max(0.0, self._timer - time.monotonic())

    def _start_waiting(self) -> None:
        """Start the exchanges that wait, then those of `supply`, while there is room."""
        # What waits here (redirects, retries) holds claims and buffers, so it goes before new requests.
        while self._waiting and len(self._under_way) < self.room:
            self._begin(self._waiting.popleft())
        while self._supply and self._hungry and not self._waiting and (room := self._room_left()) > 0:
            self._hungry = False  # before the call: `feed` may be called during it
            exchanges = self._supply(room)
            self._hungry |= bool(exchanges)
            for exchange in exchanges:
                self._begin(exchange)

    def _room_left(self) -> int:
        return self.room - len(self._under_way) - sum(map(len, self._resolving.values()))

    def _complete_ended(self) -> None:
        ended: list[Exchange | None] = []
        left = 1
        while left:
            left, good, failed = self._multi.info_read()
            codes = [(handle, 0) for handle in good] + [(handle, code) for handle, code, _ in failed]
            ended += [self._take_out(handle, code) for handle, code in codes]
        if ended:
            self._start_waiting()  # before the responses are handled, so that the network is not idle meanwhile
        for exchange in filter(None, ended):
            self._advance(exchange)

    def _begin(self, exchange: Exchange) -> None:
        """Send the request, or end the exchange with the error that forbids it."""
        try:
            client = exchange.request.client
            proxy = self._proxy(exchange) if client.proxies else None
            slot = self._slot(exchange, proxy)
        except _Resolving:
            return
        except Exception as error:  # noqa: BLE001 - raised where the response is waited for
            exchange.error = _unsendable(error) if isinstance(error, pycurl.error) else error
            self.call(partial(exchange.done, exchange))
            return
        self._multi.add_handle(slot.handle)
        self._under_way[slot.handle] = slot
        slot.bytes_moved, slot.moved = 0, time.monotonic()
        if not self._looking:
            self._schedule_look()

    def _slot(self, exchange: Exchange, proxy: Proxy | None) -> _Slot:
        client = exchange.request.client
        # Most requests are of the client of the last one; a look-up by its value would compare all its settings.
        if client is not self._client:
            self._client, self._slots = client, self._free[client]
        slot = self._slots.pop() if self._slots else self._new_slot(client, self._slots)
        slot.exchange = exchange
        exchange.reset()
        exchange.configure(slot.handle, self._pause)
        if exchange.fresh:
            slot.handle.setopt(pycurl.FRESH_CONNECT, 1)
        # The proxy differs by origin, unlike the options of `_new_slot`.
        if client.proxies:
            slot.handle.setopt(pycurl.PROXY, proxy.url if proxy else "")
            # Else libcurl would read NO_PROXY itself, by other rules than `proxy_for`.
            slot.handle.setopt(pycurl.NOPROXY, "")
            slot.handle.setopt(pycurl.PROXYUSERNAME, proxy.user.encode() if proxy else "")
            slot.handle.setopt(pycurl.PROXYPASSWORD, proxy.password.encode() if proxy else "")
        return slot

    def _new_slot(self, client: Client, free: list[_Slot]) -> _Slot:
        """A handle with the options that all requests of a client share."""
        handle = pycurl.Curl()
        allowed = frozenset(client.allowed)
        self._allowed = allowed if self._allowed is None else self._allowed
        # libcurl would reuse a connection to a host that only another client allows.
        alone = allowed != self._allowed
        slot = _Slot(handle, client, free)
        options: dict[int, Any] = {
            # libcurl may use signals for time-outs, which are unsafe with threads.
            pycurl.NOSIGNAL: 1,
            pycurl.BUFFERSIZE: RECEIVE_BUFFER,
            pycurl.FOLLOWLOCATION: 0,  # `Exchange.follow` does it, hop by hop
            pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
            # An HTTP/0.9 response has no status: whatever any port sends would pass for an object.
            pycurl.HTTP09_ALLOWED: 0,
            # Bytes as they are stored: listed sizes, ranges and checksums are of these.
            pycurl.HTTP_CONTENT_DECODING: 0,
            pycurl.ENCODING: "identity",
            # No credentials but those of the request.
            pycurl.NETRC: 0,
            # Keys may hold `..`, and S3 signs the path as it is sent.
            pycurl.PATH_AS_IS: 1,
            pycurl.CONNECTTIMEOUT: CONNECT_SECONDS,
            pycurl.USERAGENT: USER_AGENT,
            # Else libcurl would take the environment's proxy, by which the server's address could not be checked.
            pycurl.PROXY: "",
            pycurl.CAINFO: trusted_authorities(client.ca_file),
            # HTTP/2 is slower, over one connection; and it sends frames that `_check_silence` takes for unasked bytes.
            pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
            pycurl.PREREQFUNCTION: self._check_silence,
            pycurl.OPENSOCKETFUNCTION: partial(self._open_socket, slot),
            pycurl.FRESH_CONNECT: int(alone),
            pycurl.FORBID_REUSE: int(alone),
        }
        if client.certificate:
            options[pycurl.SSLCERT] = client.certificate
        for option, value in options.items():
            handle.setopt(option, value)
        return slot

    def _take_out(self, handle: pycurl.Curl, code: int) -> Exchange | None:
        """Take an ended exchange from libcurl; None where it is sent again."""
        slot = self._under_way.pop(handle)
        exchange, slot.exchange = slot.exchange, None
        assert exchange is not None  # noqa: S101 - it was under way
        # `_check_silence` aborted it: once, it is sent again on a new connection.
        again = code == pycurl.E_ABORTED_BY_CALLBACK and not exchange.fresh
        if not again:
            is_reusable = exchange.complete(handle, code)
            self._received += exchange.received
            # After an error libcurl closes the connection itself.
            if not is_reusable and not code:
                shut_down(handle)  # before `remove_handle`, after which the handle has no socket
        self._multi.remove_handle(handle)
        exchange.handle = None
        # Only plain reads share handles: what one request sets would stay set for the next.
        if exchange.target.is_plain and not exchange.fresh:
            handle.unsetopt(pycurl.WRITEFUNCTION)  # it refers to the body, which would stay in memory
            slot.free.append(slot)
        else:
            handle.close()
        exchange.fresh = again
        if again:
            self._waiting.appendleft(exchange)
        return None if again else exchange

    def _advance(self, exchange: Exchange) -> None:
        """Follow a redirect, or end the exchange."""
        if exchange.error is None and exchange.is_redirected() and exchange.follow():
            self._waiting.appendleft(exchange)
        else:
            exchange.done(exchange)

    def _schedule_look(self) -> None:
        self._looking = bool(self._under_way)
        if self._looking:
            idle = min(slot.client.idle for slot in self._under_way.values())
            self.call_later(min(idle / 4, LOOK_SECONDS), self._end_silent)

    def _end_silent(self) -> None:
        """End exchanges whose bodies, sent or received, had no further byte for their idle time.

        libcurl's own limit has whole seconds only, and takes the mean of the last six.
        """
        now = time.monotonic()
        silent = []
        for handle, slot in self._under_way.items():
            moved = handle.getinfo(pycurl.SIZE_UPLOAD_T)
            # The short answer to an upload must be whole in the idle time: no other limit holds for it.
            if slot.exchange is None or slot.exchange.request.upload is None:
                moved += handle.getinfo(pycurl.SIZE_DOWNLOAD_T)
            if moved != slot.bytes_moved:
                slot.bytes_moved, slot.moved = moved, now
            elif now - slot.moved > slot.client.idle:
                silent.append(handle)
        # After the search: `_take_out` changes what it goes through.
        ended = [self._take_out(handle, pycurl.E_OPERATION_TIMEDOUT) for handle in silent]
        for exchange in filter(None, ended):
            self._advance(exchange)
        self._schedule_look()

    def _proxy(self, exchange: Exchange) -> Proxy | None:
        """The proxy of a request, or None. Requests to an origin wait until a thread has checked its addresses.

        Raises:
            _Resolving: The addresses are not checked yet.
            StagegateError: One of the addresses is blocked, or the proxy can't be used.
        """
        origin = origin_of(exchange.target.url)
        proxy_key = (origin, exchange.request.client.proxies)
        if proxy_key not in self._proxies:
            if proxy := proxy_for(*proxy_key):
                self._resolve(exchange, proxy_key, proxy)
                raise _Resolving
            self._proxies[proxy_key] = None
        answer = self._proxies[proxy_key]
        if isinstance(answer, StagegateError):
            raise answer
        return answer

    def _resolve(self, exchange: Exchange, proxy_key: _ProxyKey, proxy: Proxy) -> None:
        """Have a thread check an origin's addresses. Further requests to the origin wait for the same result."""
        self._resolving[proxy_key].append(exchange)
        if len(self._resolving[proxy_key]) > 1:
            return

        def look_up() -> None:
            answer: Proxy | StagegateError = proxy
            host = proxy_key[0].host
            if address := blocked_address(host, exchange.request.client.allowed):
                answer = ForbiddenAddress(refusal(host, address), hint=ALLOW_HINT)
            self.call(partial(self._resolved, proxy_key, answer))

        # In a thread of its own: DNS can't be interrupted, and may take long.
        threading.Thread(target=look_up, name="stagegate-proxy", daemon=True).start()

    def _resolved(self, proxy_key: _ProxyKey, answer: Proxy | StagegateError) -> None:
        self._proxies[proxy_key] = answer
        self._waiting.extend(self._resolving.pop(proxy_key))

    def _pause(self, handle: pycurl.Curl, seconds: float) -> None:
        """Resume a handle later, which its callback pauses now."""
        # A paused exchange is not silent: its idle time begins when it is resumed.
        self._under_way[handle].moved = time.monotonic() + seconds
        self.call_later(seconds, partial(self._resume, handle))

    def _resume(self, handle: pycurl.Curl) -> None:
        if handle in self._under_way:
            handle.pause(pycurl.PAUSE_CONT)

    def _open_socket(self, slot: _Slot, _purpose: int, address: Any) -> int:
        try:
            descriptor = self._sockets.open(address, slot.client.allowed)
        except Exception:
            # libcurl would only print an exception of its callback, so the request fails instead.
            log.debug("A socket can't be made", exc_info=True)
            return int(pycurl.SOCKET_BAD)
        if isinstance(descriptor, str):
            if slot.exchange:
                slot.exchange.blocked = descriptor
            return int(pycurl.SOCKET_BAD)
        return descriptor

    def _check_silence(self, remote: str, local: str, remote_port: int, local_port: int) -> int:
        try:
            silent = self._sockets.is_silent((remote, remote_port, local, local_port))
        except OSError:
            # A connection that can't be looked at is not used again.
            silent = False
        return int(pycurl.PREREQFUNC_OK if silent else pycurl.PREREQFUNC_ABORT)

    def _watch(self, event: int, descriptor: int, _multi: object, _data: object) -> None:
        """Called by libcurl with the event to wait for on a descriptor."""
        if event == pycurl.POLL_REMOVE:
            if self._masks.pop(descriptor, None) is not None:
                try:  # noqa: SIM105 - `suppress` would cost as much again, and this is done for each request
                    self._epoll.unregister(descriptor)
                except OSError:
                    pass  # one that is closed is unregistered already
            return
        mask = (_READABLE if event & pycurl.POLL_IN else 0) | (_WRITABLE if event & pycurl.POLL_OUT else 0)
        # epoll refuses to register a descriptor twice, and libcurl also tells changes of what is watched.
        known = self._masks.get(descriptor)
        if known is None:
            self._epoll.register(descriptor, mask)
        elif known != mask:
            self._epoll.modify(descriptor, mask)
        self._masks[descriptor] = mask

    def _set_timer(self, milliseconds: int) -> None:
        """Called by libcurl with the time after which to call it without an event."""
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000

    def _end(self) -> None:
        """Free all handles. A caller that waits for an exchange sees that the thread has ended."""
        for handle in self._under_way:
            self._multi.remove_handle(handle)
            handle.close()
        for slots in self._free.values():
            for slot in slots:
                slot.handle.close()
        self._under_way.clear()
        if "_multi" in vars(self):
            self._multi.close()
        self._epoll.close()
        super()._end()


class _Resolving(Exception):
    """The exchange waits for DNS, and is started again afterwards."""


def _unsendable(error: pycurl.error) -> StagegateError:
    return UsageError(f"The request can't be sent ({pycurl.easy_strerror(error.args[0])})", hint="Check the URL.")
