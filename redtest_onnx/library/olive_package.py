"""The package configuration through which Microsoft's Olive finds our pass beside its own.

python -m redtest_onnx.library.olive_package olive_package.json
olive run --config workflow.json --package-config olive_package.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from redtest_onnx.errors import OutputError, RedtestError, RuntimeUnavailableError

_PASS = "RedtestPrune"


def package_config() -> dict[str, Any]:
    """Olive's own package configuration with `RedtestPrune` added.

    Raises:
        RuntimeUnavailableError: Olive is not installed.
    """
    try:
        from olive.package_config import OlivePackageConfig
    except ImportError as error:
        raise RuntimeUnavailableError("Olive is not installed", hint="pip install olive-ai") from error
    path = Path(OlivePackageConfig.get_default_config_path())
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    config["passes"][_PASS] = {
        "module_path": f"redtest_onnx.library.olive_pass.{_PASS}",
        "supported_providers": ["*"],
        "supported_accelerators": ["*"],
        "supported_precisions": ["*"],
    }
    return config


def main(arguments: list[str]) -> int:
    """Write the package configuration to the file that is named; the exit code."""
    if len(arguments) != 1:
        print("usage: python -m redtest_onnx.library.olive_package FILE", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    try:
        text = json.dumps(package_config(), indent=2) + "\n"
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"can't be written ({error.strerror})", where=str(path)) from error
    except RedtestError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
