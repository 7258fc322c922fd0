"""The commands of `qir`."""
