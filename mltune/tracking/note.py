"""The description of a run: ours below what people wrote."""

from __future__ import annotations

from mltune.tracking.tags import LIMIT

MARK = "**mltune: "
"""Where our part of a description begins."""

_LEAST = 200  # characters of ours that say something


def merged(description: str, ours: str) -> str | None:
    """A run's description with our part of it new, and what people wrote above it as it was.

    Args:
        description: What the run has.
        ours: Markdown that begins with :data:`MARK`.

    Returns:
        None where there is no room for ours; it is cut where there is little.

    >>> merged("My notes.", "**mltune: RUNNING**")
    'My notes.\\n\\n**mltune: RUNNING**'
    >>> merged("My notes.\\n\\n**mltune: RUNNING**", "**mltune: COMPLETE**")
    'My notes.\\n\\n**mltune: COMPLETE**'
    """
    before, found, _ = f"\n{description}".rpartition(f"\n{MARK}")
    theirs = (before[1:] if found else description).rstrip()
    above = f"{theirs}\n\n" if theirs else ""
    room = LIMIT - len(above)
    return above + ours[:room] if room >= _LEAST else None
