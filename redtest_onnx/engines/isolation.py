"""Processes that we start: they find the modules that this one finds, and none in the working folder."""

from __future__ import annotations

import json
import os
import sys

_SAFE_PATH = "PYTHONSAFEPATH"  # since Python 3.11: neither the working folder nor a script's comes first
_BEGIN = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__')"
)


def keep_working_folder_out() -> None:
    """Let no Python process that starts from here on look for modules in its working folder.

    Workers of `multiprocessing`, its resource tracker, and whatever else starts `python -c` would: a folder
    that somebody downloaded may hold a `numpy.py`.
    """
    os.environ[_SAFE_PATH] = "1"


def isolated_command(module: str, *arguments: str) -> list[str]:
    """A command line that runs a module in a process of its own.

    It runs isolated (`python -I`: no working folder, no variables of the environment, no user's site), with
    the module path of this process but for entries that depend on the working folder.

    Args:
        module: full name, run as `python -m` does.
        arguments: `sys.argv[1:]` of the module.
    """
    path = json.dumps([entry for entry in sys.path if os.path.isabs(entry)])
    return [sys.executable, "-I", "-c", _BEGIN, path, module, *arguments]
