"""The code around the user's objective, in the process of a worker."""
