"""Makes /opt/entrypoint, a directory with a Python of its own, for images of every kind."""
