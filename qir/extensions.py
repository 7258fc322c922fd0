"""What installed packages add to qir, by entry points.

[project.entry-points."qir.passes"]
my-pass = "my_package.my_pass:MyPass"
[project.entry-points."qir.targets"]
my-npu = "my_package"                   # the package in which my-npu.toml lies
[project.entry-points."qir.operators"]
my-operators = "my_package.operators"   # a module that declares operators
[project.entry-points."qir.torch"]
my-operators = "my_package.torch"       # a module that registers lowerings and emissions for torch
"""

from __future__ import annotations

from importlib import import_module

from qir.errors import QirError


def listed(group: str) -> dict[str, str]:
    """What installed packages list in the entry point group: by name, where it is."""
    from importlib.metadata import entry_points

    return {entry.name: entry.value for entry in entry_points(group=group)}


def load_modules(group: str) -> None:
    """Import the modules that installed packages list in the group. Raises QirError when one can not be imported."""
    for name, module in listed(group).items():
        try:
            import_module(module)
        except ImportError as error:
            message = f"{module}, listed as {name!r} in {group!r}, can not be imported: {error}"
            raise QirError(message, help="repair or uninstall the package that lists it") from error
