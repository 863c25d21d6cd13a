"""Terminal output: the progress of a running study, and tables."""
