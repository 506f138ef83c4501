"""The C library's allocator, told how workers use memory."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of options in glibc's malloc.h
_LARGEST = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process reuse freed memory instead of handing it back to the system after every large array.

    A worker allocates and frees the same tens of megabytes for study after study. By default each large array is mapped
    anew, and the system clears its pages one fault at a time: that was half of all CPU time in preparation, on a
    virtual machine. The price is that the process keeps its largest size until it ends, so this is for workers. Does
    nothing where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, _LARGEST)
