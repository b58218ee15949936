"""What a command imports, alone: how long that takes is no part of its work.

python imports.py LIST prune MODEL ...      # run a command of redtest-onnx, and list what it imported
python imports.py LIST                      # import that
"""

import json
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

names, command = Path(sys.argv[1]), sys.argv[2:]
if command:
    from redtest_onnx.cli.main import run

    before = set(sys.modules)
    code = run(command)
    names.write_text(json.dumps([name for name in sys.modules if name not in before]))
    sys.exit(code)
for name in json.loads(names.read_text()):
    with suppress(ImportError):  # some are made by other modules, and none by themselves
        import_module(name)
