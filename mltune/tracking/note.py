"""The description of a run: mltune's part, below the text that users wrote."""

from __future__ import annotations

from mltune.tracking.tags import LIMIT

MARK = "**mltune: "
"""The beginning of mltune's part of a description."""

_LEAST = 200  # characters that mltune's part needs to be useful


def merged(description: str, ours: str) -> str | None:
    """Return a run's description with mltune's part replaced, and the users' text above it kept.

    Args:
        description: The run's current description.
        ours: mltune's part: Markdown that begins with :data:`MARK`.

    Returns:
        The description, with mltune's part truncated if there is little room, or None if there is too little.

    >>> merged("My notes.", "**mltune: RUNNING**")
    'My notes.\\n\\n**mltune: RUNNING**'
    >>> merged("My notes.\\n\\n**mltune: RUNNING**", "**mltune: COMPLETE**")
    'My notes.\\n\\n**mltune: COMPLETE**'
    """
    before, mark, _ = f"\n{description}".rpartition(f"\n{MARK}")
    user_text = (before[1:] if mark else description).rstrip()
    above = f"{user_text}\n\n" if user_text else ""
    room = LIMIT - len(above)
    return above + ours[:room] if room >= _LEAST else None
