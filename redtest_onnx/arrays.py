"""Names of NumPy arrays by the type of their elements, for annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Float64s: TypeAlias = npt.NDArray[np.float64]
Float32s: TypeAlias = npt.NDArray[np.float32]

Indices: TypeAlias = npt.NDArray[np.int64]
"""Which samples, layers or channels."""

Counts: TypeAlias = npt.NDArray[np.int64]

Flags: TypeAlias = npt.NDArray[np.bool_]

Counted: TypeAlias = Flags | None
"""[n, positions] which positions of sequences count, of the leading axes where there are more; None: all."""

Values: TypeAlias = npt.NDArray[np.generic]
"""Elements of any type, which are not computed with before that is looked at."""

Numbers: TypeAlias = npt.NDArray[Any]
"""Elements of any type of number, which the code computes with as they are."""

ArraysByName: TypeAlias = Mapping[str, Values]
"""Such as what a run is fed, by the names of the inputs."""
