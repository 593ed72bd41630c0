"""Ctrl-C and SIGTERM: the program ends with one line, wherever it waits."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread, current_thread, get_ident, main_thread

import typer

_AGAIN = 0.1
"""Seconds until the main thread is woken again."""


@contextmanager
def resumable(kept: Callable[[], str]) -> Iterator[None]:
    """End with one line on Ctrl-C and SIGTERM: what is kept, and how to continue. Exit codes as shells have them."""
    begun = signal.getsignal(signal.SIGTERM)
    received = [signal.SIGINT]

    def end(number: int, _: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may be sent again and again, until all of a group has ended
        received.append(signal.Signals(number))
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {kept()}", err=True)
        raise typer.Exit(128 + received[-1]) from None
    finally:
        if signal.getsignal(signal.SIGTERM) is end:  # after an interrupt it stays ignored, also by who called this
            signal.signal(signal.SIGTERM, begun)


@contextmanager
def heard() -> Iterator[None]:
    """Handle signals also while the main thread waits for a lock without end.

    Python handles them in the main thread alone. One that arrives in another thread, or in the instant before a wait
    begins, does not end the wait. A thread that hears of each signal wakes the main thread until it has handled it.
    """
    if current_thread() is not main_thread():  # which has no say in signals
        yield
        return
    main, handled = get_ident(), Event()
    hears, tells = os.pipe()
    os.set_blocking(tells, False)

    def wake() -> None:
        while received := os.read(hears, 64):
            if set(received) - {signal.SIGURG}:
                handled.clear()
                while not handled.is_set():
                    signal.pthread_kill(main, signal.SIGURG)
                    handled.wait(_AGAIN)
        os.close(hears)

    # No process expects this signal from another, and by default it is ignored.
    before = signal.signal(signal.SIGURG, lambda *_: handled.set())
    outer = signal.set_wakeup_fd(tells, warn_on_full_buffer=False)
    thread = Thread(target=wake, name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(outer)
        os.close(tells)
        handled.set()
        thread.join()
        signal.signal(signal.SIGURG, before)
