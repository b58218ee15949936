"""Tables (.parquet, .arrow, .feather, .jsonl, .csv): a row per sample, columns of numbers or images."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.data.arrays import check_labels
from redtest_onnx.data.image_pipeline import ImageOptions, ImagePipeline
from redtest_onnx.data.records import Record, RecordData
from redtest_onnx.errors import InputError, RuntimeUnavailableError
from redtest_onnx.graph.model import Model, TensorSpec
from redtest_onnx.graph.signature import batch_axes

TABLES = frozenset({".parquet", ".arrow", ".feather", ".jsonl", ".csv"})
LABELS = ("labels", "label")


def open_table(path: Path, model: Model, images: ImageOptions) -> RecordData:
    """Open a table.

    A column is for the input of its name. A model with one input may have another column for it, if that is
    the only one beside the label; or one number per column, which together are its vector. Bytes and paths
    (from the table's folder) of image files are prepared like images in a folder.

    Args:
        path: of the file; Parquet is unpacked row group by row group into a temporary file that is mapped.
        model: what the rows are for.
        images: how images become inputs.

    Raises:
        InputError: unreadable, or columns that don't fit the model.
        RuntimeUnavailableError: pyarrow is not installed.
    """
    table = _read(path)
    labels = next(
        (name for name in LABELS if name in table.column_names and not _is_input(name, model)), None
    )
    columns = [name for name in table.column_names if name != labels]
    if not len(table) or not columns:
        raise InputError("holds no samples", where=str(path))
    axes = batch_axes(model)
    readers = {
        spec.name: _reader(table, _columns_for(spec, columns, model, str(path)), spec, axes, path, images)
        for spec in model.inputs
    }
    classes = None
    if labels:
        classes = check_labels(table.column(labels).to_numpy(), len(table), str(path))

    def read(index: int) -> Record:
        return {name: reader(index) for name, (reader, _) in readers.items()}

    said = "; ".join(filter(None, (text for _, text in readers.values())))
    return RecordData(str(path), model, len(table), read, classes, said, bool(said))


def _read(path: Path) -> Any:
    """The table, mapped where the format allows it."""
    try:
        import pyarrow
        import pyarrow.csv
        import pyarrow.feather
        import pyarrow.json
        import pyarrow.parquet
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"reading {path.suffix} needs pyarrow", hint='pip install "redtest-onnx[data]"'
        ) from error
    try:
        match path.suffix.lower():
            case ".parquet":
                return _unpacked(pyarrow, pyarrow.parquet.ParquetFile(path))
            case ".csv":
                return pyarrow.csv.read_csv(path)
            case ".jsonl":
                return pyarrow.json.read_json(path)
            case _:
                return _mapped(pyarrow, path)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise InputError(f"can't be read: {error}", where=str(path)) from error


def _mapped(pyarrow: Any, path: Path) -> Any:
    source = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_file(source).read_all()
    except pyarrow.ArrowInvalid:
        source.seek(0)
        return pyarrow.ipc.open_stream(source).read_all()  # as Hugging Face's data sets are stored


def _unpacked(pyarrow: Any, file: Any) -> Any:
    with tempfile.TemporaryDirectory(prefix="redtest-onnx-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "rows.arrow"
        with pyarrow.OSFile(str(path), "wb") as out, pyarrow.ipc.new_file(out, file.schema_arrow) as writer:
            for batch in file.iter_batches(batch_size=1024):
                writer.write_batch(batch)
        return _mapped(pyarrow, path)  # stays mapped when its name is gone


def _columns_for(spec: TensorSpec, columns: list[str], model: Model, source: str) -> list[str]:
    if spec.name in columns:
        return [spec.name]
    if len(model.inputs) == 1:
        return columns
    raise InputError(
        f"has no column {spec.name!r}; it has {', '.join(columns)}",
        where=source,
        hint=f"name the columns like the model's inputs: {', '.join(s.name for s in model.inputs)}",
    )


def _reader(
    table: Any,
    columns: list[str],
    spec: TensorSpec,
    axes: dict[str, int | None],
    path: Path,
    images: ImageOptions,
) -> tuple[Callable[[int], npt.NDArray[Any]], str]:
    """What reads an input's value of a row, and what is done to it in words."""
    first = [table.column(name)[0].as_py() for name in columns]
    if len(columns) == 1 and _image_of(first[0]) is not None:
        pipeline = ImagePipeline.of(spec, images)
        column = table.column(columns[0])

        def image(index: int) -> npt.NDArray[Any]:
            content = _image_of(column[index].as_py())
            where = f"{path}, row {index}"
            if content is None:
                raise InputError("holds no image", where=where)
            data = content if isinstance(content, bytes) else _file(path.parent / content, where)
            result: npt.NDArray[Any] = pipeline.batch([pipeline.decode(data, where)], str(path))[0]
            return result

        return image, str(pipeline)
    rest = [dim for k, dim in enumerate(spec.shape or ()) if k != axes[spec.name]]
    dtype = spec.numpy_dtype

    def numbers(index: int) -> npt.NDArray[Any]:
        values = [table.column(name)[index].as_py() for name in columns]
        array = _numbers(values[0] if len(columns) == 1 else values, dtype, f"{path}, row {index}", columns)
        if array.ndim == 1 and len(rest) > 1 and all(isinstance(dim, int) for dim in rest):
            array = _shaped(array, rest, f"{path}, row {index}", spec)
        elif array.ndim == 0 and len(rest) == 1:
            array = array[None]
        return array

    return numbers, ""


def _numbers(value: Any, dtype: np.dtype[Any], where: str, columns: list[str]) -> npt.NDArray[Any]:
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub" or (array.dtype.kind == "f" and dtype.kind in "iu"):
            raise ValueError(f"{array.dtype} where the model takes {dtype}")
        return array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"column {', '.join(columns)} holds no numbers ({error})",
            where=where,
            hint="give numbers or lists of numbers; text needs the model's tokenizer",
        ) from error


def _shaped(array: npt.NDArray[Any], rest: list[Any], where: str, spec: TensorSpec) -> npt.NDArray[Any]:
    try:
        return array.reshape(rest)
    except ValueError as error:
        raise InputError(f"holds {array.size} numbers, {spec.name!r} is {spec}", where=where) from error


def _image_of(value: Any) -> bytes | str | None:
    """Content or path of an image: bytes, a path, or the two as Hugging Face stores them."""
    if isinstance(value, dict) and {"bytes", "path"} & set(value):
        return value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) and Path(value).suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp", ".webp"):
        return value
    return None


def _file(path: Path, where: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"names a file that can't be read ({error})", where=where) from error


def _is_input(name: str, model: Model) -> bool:
    return any(spec.name == name for spec in model.inputs)
