"""The frontends of qir; installed as qir.frontends."""

if __name__ == "frontends":
    raise ImportError("import this as qir.frontends")
