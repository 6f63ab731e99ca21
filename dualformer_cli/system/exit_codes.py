"""With which code a command ends, and what it means: 0 where all went well."""

from __future__ import annotations

FAILED = 1
"""Nothing was done, or not to its end; one line on stderr says why, or one for each thing that is missing."""
WRONG_USAGE = 2
"""Typer's own code: an option or a value that there is not."""
SOME_FAILED = 3
"""Done, but some inputs failed; the output names them."""
SAVED = 75
"""Stopped by a signal with the state saved: the C library's EX_TEMPFAIL, try again later."""
INTERRUPTED = 130
"""By Ctrl-C: 128 + SIGINT, as shells have it."""
NO_READER = 141
"""Nobody reads stdout any more: 128 + SIGPIPE."""
