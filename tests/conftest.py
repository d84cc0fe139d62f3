"""What holds for every test, wherever the suite was started from."""

import signal

from hypothesis import settings

# A shell starts what runs in its background with SIGINT ignored, and a child inherits that: Ctrl-C, which tests send,
# would reach nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow machine fails no test: hypothesis, by itself, gives each example 200 ms.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
