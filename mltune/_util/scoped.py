"""Context managers that change the process temporarily."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_IMPORTS = threading.Lock()


@contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """Set a logger's level within the block."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """Suppress all warnings, and a library's log messages below ERROR, within the block.

    >>> with quiet("optuna"):
    ...     logging.getLogger("optuna").getEffectiveLevel() == logging.ERROR
    True
    """
    with log_level(library, logging.ERROR), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def not_importable(module: str) -> Iterator[None]:
    """Make imports of a module fail within the block, in all threads, unless it is imported already.

    >>> with not_importable("antigravity"):
    ...     import antigravity
    Traceback (most recent call last):
    ModuleNotFoundError: import of antigravity halted; None in sys.modules
    """
    with _IMPORTS:
        if module in sys.modules:
            yield
            return
        sys.modules[module] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[module]


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Limit PyTorch to one thread within the block.

    While workers are busy, operations on small matrices take several times as long on more threads.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
