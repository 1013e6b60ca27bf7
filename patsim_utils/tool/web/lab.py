"""What `make lab` sets up: notebooks are saved without outputs, so that git stays clean."""

from typing import Any

import nbformat
from nbconvert.preprocessors import ClearMetadataPreprocessor, ClearOutputPreprocessor


def clean(model: dict[str, Any], **_: object) -> None:
    """Hook of Jupyter before saving: keeps cells and their tags, kernel and language."""
    if model["type"] == "notebook" and model["content"]["nbformat"] == 4:
        notebook, _ = ClearOutputPreprocessor(enabled=True)(nbformat.from_dict(model["content"]), {})
        kept = {"kernelspec", ("language_info", "name")}
        clear = ClearMetadataPreprocessor(preserve_cell_metadata_mask={"tags"}, preserve_nb_metadata_mask=kept)
        model["content"], _ = clear.preprocess(notebook, {})
