"""How the files of users' code are named."""

from __future__ import annotations

import os
import sysconfig
from functools import cache


@cache
def packages_folder() -> str:
    """Where installed packages lie."""
    return sysconfig.get_paths()["purelib"]


def shortened(file: str) -> str:
    """A path relative to the installed packages or the working folder, from where linecache still finds it."""
    for folder in (packages_folder(), os.getcwd()):
        if file.startswith(folder + "/"):
            return file[len(folder) + 1 :]
    return file
