"""`python -m redtest_onnx`: the command line without its installed script."""

import os
import sys
from pathlib import Path

# Python puts the working folder first, whose modules are not ours to run.
if sys.path[:1] == [os.getcwd()] and not sys.flags.safe_path and Path(__file__).parents[1] != Path.cwd():
    del sys.path[0]

from redtest_onnx.cli.main import main

main()
