"""Responsible for putting a host into situations that need system calls of their own.

Each function is for a host program: it changes the calling process for good.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct

__all__ = ["forbid", "start_with_pid"]

_LIBC = ctypes.CDLL(None, use_errno=True)

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

#: Numbers of x86-64; the filter is for that machine only.
CALLS = {"pidfd_open": 434, "pidfd_send_signal": 424, "memfd_create": 319, "clone3": 435}
CALLS |= {"clone": 56, "fork": 57, "vfork": 58}


def forbid(*names: str, code: int = errno.ENOSYS) -> None:
    """Let the kernel refuse these system calls, as old kernels and container profiles do.

    The filter is classic BPF of seccomp(2): load the call's number, compare, refuse or allow.
    """
    load, jump_equal, give = 0x20, 0x15, 0x06
    program = struct.pack("HBBI", load, 0, 0, 0)
    for name in names:
        program += struct.pack("HBBI", jump_equal, 0, 1, CALLS[name])
        program += struct.pack("HBBI", give, 0, 0, 0x00050000 | code)
    program += struct.pack("HBBI", give, 0, 0, 0x7FFF0000)
    text = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text))
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header, len(header)))


def _prctl(option: int, value: int, pointer: object = 0) -> None:
    if _LIBC.prctl(option, value, pointer, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def start_with_pid(pid: int, *words: str) -> int:
    """Start a program in a session of its own under a number that is free (clone3, set_tid).

    Needs the right to choose: root of a pid namespace, in which pids are used up slowly.
    """
    number = (ctypes.c_int * 1)(pid)
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, its size, tls, set_tid, its size
    fields = [0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(number), 1]
    arguments = (ctypes.c_uint64 * len(fields))(*fields)
    child = _LIBC.syscall(CALLS["clone3"], arguments, ctypes.sizeof(arguments))
    if child < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    if child == 0:
        os.setsid()
        os.execvp(words[0], words)
    return int(child)
