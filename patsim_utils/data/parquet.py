"""Parquet files: values keep their types; integers stay integers where some are missing."""

import io
from collections.abc import Iterator

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from patsim_utils.errors import InputError, clip

MOST_CELLS = 50_000_000  # rows times columns
LARGEST_TEXT = 2**30  # bytes of all text, which a small file can repeat without end
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
        file = _open(content)
        cells = file.metadata.num_rows * file.metadata.num_columns
        if cells > MOST_CELLS:
            size = f"{cells:,} cells, more than {MOST_CELLS:,}"
            raise InputError(f"{source}: has {size}; cut it into several tables")
        return _frame(source, file.read())
    except InputError:
        raise
    except Exception as error:  # the engine raises errors of many kinds for a damaged file
        raise InputError(f"{source}: cannot be read as a Parquet file ({clip(error)})") from error


def read_batches(source: str, content: bytes, rows: int) -> Iterator[pd.DataFrame]:
    """The rows in pieces of at most so many."""
    try:
        for batch in _open(content).iter_batches(batch_size=rows):
            yield _frame(source, pa.Table.from_batches([batch]))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{source}: cannot be read as a Parquet file ({clip(error)})") from error


def _open(content: bytes) -> pq.ParquetFile:
    """The file, whose text is read as a dictionary: its size is known before it is spread out."""
    schema = pq.read_schema(io.BytesIO(content))
    texts = [field.name for field in schema if field.type in TEXTS]
    return pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)


def _frame(source: str, table: pa.Table) -> pd.DataFrame:
    size = sum(_text_size(column) for column in table.columns)
    if size > LARGEST_TEXT:
        excess = f"{size:,} bytes of text, more than {LARGEST_TEXT:,}"
        raise InputError(f"{source}: holds {excess}; cut it into several")
    nested = {}
    for position, column in enumerate(table.columns):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(position, table.field(position).name, _spread_out(column))
        elif pa.types.is_nested(column.type):
            # Else a gap would make floats of its integers
            nested[table.field(position).name] = column.to_pylist()
    frame = table.to_pandas(types_mapper=INTEGERS.get)
    for name, values in nested.items():
        if name in frame:
            frame[name] = pd.Series(values, index=frame.index, dtype=object)
    frame = frame.reset_index(drop=all(name is None for name in frame.index.names))
    for _, values in frame.items():
        values.to_list()  # text that is damaged is noticed here at the latest
    return frame


def _text_size(column: pa.ChunkedArray) -> int:
    """Bytes of the text of a dictionary's column, spread out."""
    size = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type) and chunk.type.value_type in TEXTS:
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
            size += pc.sum(lengths.cast(pa.int64())).as_py() or 0
    return size


def _spread_out(column: pa.ChunkedArray) -> pa.ChunkedArray:
    chunks = [chunk.dictionary_decode() for chunk in column.chunks]
    return pa.chunked_array(chunks, type=column.type.value_type)
