"""What holds for every test, wherever the suite was started from."""

import signal

# A shell starts what runs in its background with SIGINT ignored, and a child inherits that: Ctrl-C, which tests send,
# would reach nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
