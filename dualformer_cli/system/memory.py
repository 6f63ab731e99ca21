"""How much memory this process has taken, on any system."""

from __future__ import annotations

import sys


def peak_memory_mib() -> float:
    """Return the most memory that this process has held so far."""
    if sys.platform == "win32":
        return _peak_on_windows() / 2**20
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes on macOS, kibibytes elsewhere


if sys.platform == "win32":
    import ctypes

    class _Counters(ctypes.Structure):
        """PROCESS_MEMORY_COUNTERS."""

        _fields_ = (
            ("size", ctypes.c_ulong),
            ("page_faults", ctypes.c_ulong),
            ("peak_working_set", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 7),
        )

    def _peak_on_windows() -> int:
        counters = _Counters(size=ctypes.sizeof(_Counters))
        this_process = ctypes.c_void_p(-1)
        ctypes.WinDLL("psapi").GetProcessMemoryInfo(this_process, ctypes.byref(counters), counters.size)
        return int(counters.peak_working_set)
