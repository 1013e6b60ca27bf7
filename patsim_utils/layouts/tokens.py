"""A tokenizer's file, read by the library `tokenizers` alone: what `Pairs` and a retriever need of it."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tokenizers import Tokenizer

FILE = "tokenizer.json"
# Files that transformers reads beside it
OTHER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
BERT = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}


class AnyTokenizer(Protocol):
    """What is needed of a tokenizer: one of transformers', or `Tokens`."""

    cls_token_id: int
    sep_token_id: int
    pad_token_id: int
    unk_token_id: int

    def __len__(self) -> int: ...

    def __call__(self, texts: Sequence[str], **options: Any) -> Mapping[str, list[list[int]]]: ...

    def get_vocab(self) -> dict[str, int]: ...

    def save_pretrained(self, folder: Path) -> object: ...


class Tokens:
    """Texts -> ids. `special` are ids that are asked for by name, such as `cls_token_id`."""

    def __init__(self, file: Path, special: Mapping[str, int]) -> None:
        self.file = file
        self.backend_tokenizer = Tokenizer.from_file(str(file))
        self.backend_tokenizer.no_padding()
        self.backend_tokenizer.no_truncation()
        for name, token in special.items():
            setattr(self, name, token)

    @classmethod
    def of_bert(cls, folder: Path) -> "Tokens":
        """Those of a BERT, with its special tokens: `cls_token` is "[CLS]", `cls_token_id` its id."""
        tokens = cls(folder / FILE, BERT)
        for name, token in BERT.items():
            setattr(tokens, f"{name}_id", tokens.backend_tokenizer.token_to_id(token))
        return tokens

    def __len__(self) -> int:
        return self.backend_tokenizer.get_vocab_size()

    def __call__(
        self, texts: Sequence[str], *, add_special_tokens: bool = True, max_length: int | None = None, **_: bool
    ) -> dict[str, list[list[int]]]:
        """`input_ids` of each text; one of more than `max_length` loses those before its last token."""
        encodings = self.backend_tokenizer.encode_batch(list(texts), add_special_tokens=add_special_tokens)
        ids = [encoding.ids for encoding in encodings]
        if max_length:
            ids = [tokens if len(tokens) <= max_length else [*tokens[: max_length - 1], tokens[-1]] for tokens in ids]
        return {"input_ids": ids}

    def get_vocab(self) -> dict[str, int]:
        """Its tokens and their ids."""
        return self.backend_tokenizer.get_vocab()

    def save_pretrained(self, folder: Path) -> None:
        """Copies its file and those that transformers reads beside it."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in (FILE, *OTHER_FILES):
            shutil.copyfile(self.file.with_name(name), folder / name)
