"""`python -m redtest_onnx`: the command line without its installed script."""

from redtest_onnx.cli.main import main

main()
