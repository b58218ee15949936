"""Errors in the words of the command line: arguments of the library by their flags."""

from __future__ import annotations

from redtest_onnx.errors import RedtestError, with_words

# Arguments whose flags are called otherwise.
_FLAGS = {
    "batch": "--batch-size",
    "kernel_size": "--adapter-kernel",
    "learning_rate": "--lr",
    "plan": "--dry-run --plan FILE",
    "shapes": "--input-shape",
    "targets": "--target",
}


def in_flags(error: RedtestError) -> str:
    """The message of an error, with flags for arguments."""
    return error.worded(_flag)


def flags_in(text: str) -> str:
    """A message, with flags for the arguments that it marks."""
    return with_words(text, _flag)


def _flag(name: str, value: str) -> str:
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    return flag if value in ("", "True") else f"{flag} {value}"
