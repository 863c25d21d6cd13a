"""Changes to the process that end with their block."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet(library: str) -> Iterator[None]:
    """No warnings, and of the library's log only errors.

    >>> with quiet("optuna"):
    ...     logging.getLogger("optuna").getEffectiveLevel() == logging.ERROR
    True
    """
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


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
