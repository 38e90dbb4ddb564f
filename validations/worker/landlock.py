"""Confine this process with Linux' Landlock: it can open given paths only, and connect to nothing unless allowed.

The rules hold for the calling thread and the threads and processes that it starts, so call it before starting any.
Files that are open already stay open. Landlock covers TCP from its version 4 on, and UDP not at all. See landlock(7).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_DEVICES = 1 << 6 | 1 << 9 | 1 << 11
"""Making character devices, sockets and block devices."""
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""Number of file rights by the first version of Landlock that has them; rights are the lowest bits of a mask."""
_TRUNCATE = 1 << 14
_ALL_TCP = 1 << 0 | 1 << 1
"""Binding and connecting."""
_ALL_SCOPES = 1 << 0 | 1 << 1
"""Abstract sockets, and signals to processes that are not confined with this one."""
TCP, SCOPES = 4, 6
"""The first versions of Landlock with rules about TCP, and with scopes."""


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_, _layout_ = 1, "ms"  # Python 3.14 demands the layout that `_pack_` has always meant
    _fields_ = (("rights", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The version of Landlock that this kernel offers; 0 where it offers none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)))


def confine(
    read: Iterable[str | Path],
    write: Iterable[str | Path],
    *,
    execute: Iterable[str | Path] = (),
    tcp: bool = False,
) -> int:
    """Let this thread, and all that it starts from now on, open only what lies at or below these paths.

    Args:
        read: Files and folders that may be read. Paths that don't exist are ignored.
        write: Files and folders that may also be written to. In the folders, files may be made and removed.
        execute: Files and folders that may be read and run as programs.
        tcp: Whether TCP stays open: Landlock knows ports, and no addresses.

    Returns:
        The version of Landlock that confines the process; 0 where the kernel has none, and nothing was confined.

    Raises:
        OSError: The kernel offers Landlock and refused the rules.
    """
    offered = version()
    if not offered:
        return 0
    every = (1 << _RIGHTS[max(known for known in _RIGHTS if known <= offered)]) - 1
    rules = _Ruleset(every, _ALL_TCP if offered >= TCP and not tcp else 0, _ALL_SCOPES if offered >= SCOPES else 0)
    fields = 1 + (offered >= TCP) + (offered >= SCOPES)  # an older version refuses fields that it does not know
    ruleset = _syscall(_CREATE_RULESET, ctypes.byref(rules), ctypes.c_size_t(8 * fields), 0)
    try:
        for path in read:
            _allow(ruleset, path, _READ_FILE | _READ_DIR)
        for path in execute:
            _allow(ruleset, path, _READ_FILE | _READ_DIR | _EXECUTE)
        for path in write:
            _allow(ruleset, path, every & ~(_EXECUTE | _DEVICES))
        # The kernel confines only processes that can't gain privileges.
        if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "no_new_privs was refused")
        _syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return offered


def _allow(ruleset: int, path: str | Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        # The kernel refuses rights about folders in the rule of a file.
        if not Path(path).is_dir():
            rights &= _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE
        rule = _Beneath(rights, descriptor)
        _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _syscall(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"Landlock refused a rule: {os.strerror(error)}")
    return result
