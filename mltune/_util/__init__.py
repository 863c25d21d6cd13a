"""Helpers for the current process and the operating system; no module here depends on studies."""
