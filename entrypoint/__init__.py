"""A container entrypoint that starts the app at once and migrates its database beside it."""
