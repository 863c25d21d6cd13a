"""Format errors and stacks of user code without mltune's own frames."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from itertools import dropwhile

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def one_line(error: BaseException) -> str:
    """Return an error's type, message and last location in user code, on one line."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    frames = traceback.extract_tb(error.__traceback__)
    user_frames = [frame for frame in frames if not _is_ours(frame.filename) and "importlib" not in frame.filename]
    return f"{text} ({user_frames[-1].filename}, line {user_frames[-1].lineno})" if user_frames else text


def user_traceback(error: BaseException) -> str:
    """Return the traceback from the objective on, without mltune's frames above it."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None and _is_ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb))


def stack_of(thread: threading.Thread) -> str:
    """Return a thread's current stack from user code on, formatted as a traceback."""
    stack = traceback.extract_stack(sys._current_frames().get(thread.ident or 0))
    user_frames = dropwhile(lambda frame: _is_ours(frame.filename) or frame.filename == threading.__file__, stack)
    return "".join(["Traceback (most recent call last):\n", *traceback.format_list(list(user_frames))])


def _is_ours(filename: str) -> bool:
    return filename.startswith(_PACKAGE)
