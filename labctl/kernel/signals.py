"""What a process does on signals, as it should be at its start. Facts: signal(7), sigprocmask(2), execve(2).

Ignored and blocked signals are inherited over fork and exec: a shell starts what runs in its background with SIGINT
and SIGQUIT ignored, nohup ignores SIGHUP. A lab outlives whatever started it, and Ctrl-C must end a `ping` in a node
however `labctl up` was run.
"""

from __future__ import annotations

import signal

# Python itself ignores these, so that writing to a pipe that nobody reads is an error and not the end; commands get
# the default back (subprocess: restore_signals).
_PYTHONS = (signal.SIGPIPE, signal.SIGXFSZ)


def forget_inherited_signals() -> None:
    """Every signal that is ignored gets its default action again, and none is blocked."""
    for number in signal.valid_signals() - set(_PYTHONS):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
