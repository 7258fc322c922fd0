"""The versions of the programs that a result depends on."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("qir", "onnx", "onnxruntime", "torch", "numpy")
"""What the numbers in an artefact depend on."""


def versions(*packages: str) -> dict[str, str]:
    """The installed version of each of the packages, or of all in PACKAGES; those not installed are left out.

    Nothing is imported for it.
    """
    found = {}
    for package in packages or PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
