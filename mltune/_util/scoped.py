"""Changes to the process that end with their block."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """A logger at another level."""
    logger = logging.getLogger(name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """No warnings, and of the library's log only errors.

    >>> with quiet("optuna"):
    ...     logging.getLogger("optuna").getEffectiveLevel() == logging.ERROR
    True
    """
    with log_level(library, logging.ERROR), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """PyTorch on one thread: small matrices take several times as long on more, beside busy workers."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
