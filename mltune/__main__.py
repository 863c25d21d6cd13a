"""``python -m mltune``: the same as the ``mltune`` command."""

from mltune.cli import main

if __name__ == "__main__":
    main()
