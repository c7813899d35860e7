"""entrypoint --check: what of this very container is in our way."""
