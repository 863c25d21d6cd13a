"""Changes to the process and what the operating system knows of it; no module here knows of studies."""
