"""For the whole repository: pytest's own plugin for testing plugins."""

import signal

pytest_plugins = ["pytester"]

# A job in the background of a shell ignores Ctrl-C, and so does all that it starts. Tests send it to what they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
