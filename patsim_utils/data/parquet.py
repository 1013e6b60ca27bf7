"""Parquet files: values keep their types; integers stay integers where some are missing."""

import io
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from patsim_utils.data.names import MOST_COLUMNS
from patsim_utils.errors import InputError, clip

MOST_CELLS = 50_000_000  # values of all columns, those in lists and structures among them
MOST_NESTED = 5_000_000  # values in lists and structures, which become objects of Python
LARGEST_TEXT = 2**28  # bytes of all text that a small file may repeat; a larger one has no more than itself
TEXTS = (pa.string(), pa.large_string(), pa.binary(), pa.large_binary())
INTEGERS = {
    pa.int8(): pd.Int8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}


def read(source: str, content: bytes) -> pd.DataFrame:
    """All rows; an index with a name becomes a column.

    InputError: the file is damaged or too large.
    """
    try:
        file = _open(source, content)
        _refuse_many(source, _values(file, nested=False), MOST_CELLS)
        return _frame(source, file.read(), len(content))
    except InputError:
        raise
    except Exception as error:  # the engine raises errors of many kinds for a damaged file
        raise InputError(f"{source}: cannot be read as a Parquet file ({clip(error)})") from error


def read_batches(source: str, content: bytes, rows: int) -> Iterator[pd.DataFrame]:
    """The rows in pieces of at most so many."""
    try:
        for batch in _open(source, content).iter_batches(batch_size=rows):
            yield _frame(source, pa.Table.from_batches([batch]), len(content))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{source}: cannot be read as a Parquet file ({clip(error)})") from error


def _open(source: str, content: bytes) -> pq.ParquetFile:
    """The file, whose text is read as a dictionary: its size is known before it is spread out.

    InputError where lists and structures, or columns of a fixed width, are too large for that.
    """
    schema = pq.ParquetFile(io.BytesIO(content)).schema
    if len(schema) > MOST_COLUMNS:
        raise InputError(f"{source}: has {len(schema):,} columns, more than {MOST_COLUMNS:,}")
    columns = [schema.column(position) for position in range(len(schema))]
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    file = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)
    _refuse_many(source, _values(file, nested=True), MOST_NESTED)
    widths = sum(column.length for column in columns if column.physical_type == "FIXED_LEN_BYTE_ARRAY")
    _refuse_large(source, widths * file.metadata.num_rows, len(content))
    return file


def _values(file: pq.ParquetFile, *, nested: bool) -> int:
    """How many values a file has: all of them, or those in lists and structures alone."""
    count = 0
    for group in range(file.metadata.num_row_groups):
        for number in range(file.metadata.num_columns):
            chunk = file.metadata.row_group(group).column(number)
            if not nested or "." in chunk.path_in_schema:
                count += chunk.num_values
    return count


def _refuse_many(source: str, values: int, most: int) -> None:
    if values > most:
        raise InputError(f"{source}: has {values:,} values, more than {most:,}; cut it into several tables")


def _refuse_large(source: str, size: int, file_size: int) -> None:
    if size > max(LARGEST_TEXT, file_size):
        raise InputError(f"{source}: holds {size:,} bytes, more than {LARGEST_TEXT:,}; cut it into several tables")


def _frame(source: str, table: pa.Table, file_size: int) -> pd.DataFrame:
    size = sum(_text_size(chunk) for column in table.columns for chunk in column.chunks)
    _refuse_large(source, size, file_size)
    nested = {}
    for position, column in enumerate(table.columns):
        name = table.field(position).name
        if pa.types.is_dictionary(column.type):
            table = table.set_column(position, name, _spread_out(column))
        elif pa.types.is_nested(column.type):
            # Else a gap would make floats of its integers
            nested[name] = column.to_pylist()
            table = table.set_column(position, name, pa.nulls(len(column)))
    frame = table.to_pandas(types_mapper=INTEGERS.get)
    for name, values in nested.items():
        if name in frame:
            frame[name] = pd.Series(values, index=frame.index, dtype=object)
    frame = frame.reset_index(drop=all(name is None for name in frame.index.names))
    for _, values in frame.items():
        values.to_list()  # text that is damaged is noticed here at the latest
    return frame


def _text_size(values: pa.Array) -> int:
    """Bytes of all text in an array, also in lists and structures, with dictionaries spread out."""
    if pa.types.is_dictionary(values.type):
        if values.type.value_type not in TEXTS:
            return 0
        lengths = pc.binary_length(values.dictionary).take(values.indices)
        return pc.sum(lengths.cast(pa.int64())).as_py() or 0
    if pa.types.is_map(values.type):
        return _text_size(values.keys) + _text_size(values.items)
    if pa.types.is_struct(values.type):
        return sum(map(_text_size, values.flatten()))
    if pa.types.is_nested(values.type):
        return _text_size(values.flatten())
    return 0


def _spread_out(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = [chunk.dictionary_decode() for chunk in column.chunks]
    return pa.chunked_array(chunks, type=column.type.value_type)
