"""Freed memory kept by the process: training on the CPU without the kernel's part in each large allocation.

glibc asks the kernel for a new mapping for every large block and gives it back when the block is freed, so each
activation of each step comes as pages that the kernel has to zero first. `mallopt(3)` describes the parameters.
"""

import ctypes
import platform

# The names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next allocation; true where it took the settings.

    The setting holds for the whole process and its later children. The process then never shrinks below its peak. Other
    C libraries are left as they are. `python -m benchmarks allocator` measures what it gains and costs.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD))
    accepted = [mallopt(parameter, value) for parameter, value in settings]  # all are set, whatever one answers
    return all(accepted)
