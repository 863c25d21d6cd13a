"""The executor that runs trials on Ray."""
