"""Link the four folders into build/tree/qir, the shape they have once installed, for type checkers to read."""

import shutil
from pathlib import Path

root = Path(__file__).resolve().parent.parent
package = root / "build" / "tree" / "qir"
shutil.rmtree(package, ignore_errors=True)
package.mkdir(parents=True)
for path in [*(root / "qir").iterdir(), root / "passes", root / "frontends", root / "backends"]:
    if path.name != "__pycache__":
        (package / path.name).symlink_to(path, target_is_directory=path.is_dir())
