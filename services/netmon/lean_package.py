"""Import submodules of a package without running its `__init__`.

`pyroute2/__init__.py` imports every protocol the library speaks: 6 MB and 0.2 s that a service of four on a small
edge host can do without. The version is pinned, so what its submodules need of each other is known.
"""

import importlib.util
import sys
import types


def without_init(package: str) -> None:
    """Let `package` be an empty package from now on, unless it has been imported already.

    Its submodules import as ever; the names that its `__init__` would offer are missing.
    """
    spec = importlib.util.find_spec(package) if package not in sys.modules else None
    if spec is None or spec.submodule_search_locations is None:
        return
    bare = types.ModuleType(package)
    bare.__path__ = list(spec.submodule_search_locations)
    bare.__spec__ = spec
    sys.modules[package] = bare
