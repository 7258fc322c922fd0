"""The backends of qir; installed as qir.backends."""

if __name__ == "backends":
    raise ImportError("import this as qir.backends")
