"""The migration engine: brings a Postgres database up to date from a directory of SQL files."""
