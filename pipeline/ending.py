"""How a command ends: never without a word, whatever ends it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from typer.core import TyperGroup

from .commands.printable import printable
from .storage.errors import redact

_GOES_ON = "what was committed stays, the same command goes on from there"


class Stopped(SystemExit):
    """SIGTERM or Ctrl-C, raised in the main thread; not a KeyboardInterrupt, which typer would end in its own way."""


class _UnreadError(RuntimeError):
    """What is printed goes nowhere."""


class Commands(TyperGroup):
    """Keeps from click what it would end with few words, or none."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _UnreadError(f"nobody reads any more what is printed; {_GOES_ON}") from error
        except EOFError as error:
            raise RuntimeError("something ended too early") from error


@contextmanager
def said_how_it_ends() -> Iterator[None]:
    """Around a command: what is expected to go wrong is a message without a traceback, and exit code 2 where the user
    asked for what can't be, 1 for the rest."""
    try:
        with _stoppable():
            yield
    except Stopped as stopped:
        _fail(f"stopped; {_GOES_ON}", int(str(stopped.code)))
    except _UnreadError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python writes out what is left, and complains
        _fail(str(error), 1)
    except (ValueError, RuntimeError, OSError) as error:
        if not _expected(error):
            raise
        _fail(str(error) or type(error).__name__, 2 if isinstance(error, ValueError) else 1)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Turns the two signals into Stopped, with the exit code that shells expect; so, too, what comes of a Stopped that
    reaches no Python code: raised in the middle of an import, C may make it another error."""
    codes: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        codes.append(128 + number)
        if len(codes) == 1 and _ray_is_up():  # at once: where its head is gone, too, Ray may end this process first
            _say("stopping")
        raise Stopped(codes[-1])

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except Exception:
        if not codes:
            raise
        raise Stopped(codes[-1]) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _ray_is_up() -> bool:
    return getattr(sys.modules.get("ray"), "is_initialized", bool)()


def _expected(error: Exception) -> bool:
    """Whether the error was written for the user: one of this package's own, or of the file system."""
    return type(error).__module__.startswith("tokenloom.") or isinstance(error, OSError)


def _fail(message: str, code: int) -> NoReturn:
    _say(message)
    sys.exit(code)


def _say(message: str) -> None:
    text = "\n".join(printable(redact(line)) for line in message.split("\n"))
    print(f"tokenloom: {text}", file=sys.stderr, flush=True)
