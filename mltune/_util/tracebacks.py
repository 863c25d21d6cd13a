"""Where user code stood, without mltune's own frames."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from itertools import dropwhile

_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep


def one_line(error: BaseException) -> str:
    """Type and message, and where user code stood, on one line."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    frames = traceback.extract_tb(error.__traceback__)
    users = [frame for frame in frames if not _is_ours(frame.filename) and "importlib" not in frame.filename]
    return f"{text} ({users[-1].filename}, line {users[-1].lineno})" if users else text


def user_traceback(error: BaseException) -> str:
    """The traceback from the objective on, without mltune's own frames above it."""
    tb = error.__traceback__
    while tb is not None and tb.tb_next is not None and _is_ours(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(error), error, tb))


def stack_of(thread: threading.Thread) -> str:
    """Where a thread stands in user code, as a traceback."""
    stack = traceback.extract_stack(sys._current_frames().get(thread.ident or 0))
    users = dropwhile(lambda frame: _is_ours(frame.filename) or frame.filename == threading.__file__, stack)
    return "".join(["Traceback (most recent call last):\n", *traceback.format_list(list(users))])


def _is_ours(filename: str) -> bool:
    return filename.startswith(_PACKAGE)
