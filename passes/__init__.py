"""The passes of qir; installed as qir.passes."""

if __name__ == "passes":
    raise ImportError("import this as qir.passes")
