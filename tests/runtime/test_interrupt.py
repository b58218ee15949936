"""What an interruption may not cut in two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from redtest_onnx.runtime.interrupt import delayed_interrupts

ROOT = Path(__file__).parents[2]


def test_ctrl_c_waits_until_the_block_ends() -> None:
    # A job in the background of a shell ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = []
    try:
        with delayed_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append("block")
    except KeyboardInterrupt:
        done.append("interrupt")
    finally:
        restored = signal.signal(signal.SIGINT, before)
    assert done == ["block", "interrupt"]
    assert restored is signal.default_int_handler


def test_errors_in_the_block_pass() -> None:
    with pytest.raises(ImportError), delayed_interrupts():
        raise ImportError


@pytest.mark.parametrize(
    "code", ["import redtest_onnx.search.pytorch as p; p.require_torch()", "import redtest_onnx.bridge"]
)
def test_pytorch_is_imported_to_its_end(code: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(
        "import signal\nsignal.raise_signal(signal.SIGINT)\nprint('imported', flush=True)\n"
    )
    as_on_a_terminal = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    done = subprocess.run(
        [sys.executable, "-c", as_on_a_terminal + code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "imported\n"
    assert "KeyboardInterrupt" in done.stderr
