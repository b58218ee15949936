"""The picture of the report page that README and documentation show; needs Chromium.

python tools/picture_of_page.py docs/images/page.png    # page.png without a name
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import browser, find_browser  # noqa: E402

from redtest_onnx.cli.main import run  # noqa: E402

WIDTH, HEIGHT = 1440, 900


def main() -> int:
    """Prune the embedded vision transformer and photograph the top of its page."""
    if find_browser() is None:
        print("Chromium is not installed")
        return 1
    picture = Path(sys.argv[1] if len(sys.argv) > 1 else "page.png").resolve()
    with tempfile.TemporaryDirectory() as folder:
        page, out = Path(folder) / "page.html", Path(folder) / "out.onnx"
        os.chdir(ROOT)  # the page names paths as they are given
        arguments = [
            "prune",
            "models/vit_digits.onnx",
            "--data",
            "models/digits.npz",
            "--remove",
            "4",
            "-q",
            "--layer-latency",
        ]
        code = run([*arguments, "-o", str(out), "--html", str(page)])
        if code:
            return code
        with browser() as tab:
            tab.open(page, WIDTH)
            tab.picture(picture, most=HEIGHT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
