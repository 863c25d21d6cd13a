"""What the terminal shows: a study while it runs, and tables."""
