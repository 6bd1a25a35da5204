"""The `eidola` command."""
