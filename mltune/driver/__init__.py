"""The one process that owns a study: its request, its loop, its end."""
