"""All that runs beside user code, in the process of a worker."""
