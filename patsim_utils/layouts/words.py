"""Phrases of which a score means little: of other letters than Latin, or of no word that is known."""

import re
from collections.abc import Iterable

from patsim_utils.data import cpc
from patsim_utils.data.pairs import ENGLISH_ONLY, is_latin, normalise
from patsim_utils.errors import clip

LETTERS = 3  # of a group of letters; a shorter word is taken for an abbreviation
NOTHING_KNOWN = "no word of it is known; a score of it means little"
STRANGE = 0.3  # share of its groups that stand in no known word, from which on a word is strange
# English words with their endings; a piece of a word, such as ##ing, is none
_WORD = re.compile(r"[a-z]{3,}")


class Words:
    """The words of a tokenizer and of the titles of the CPC classes.

    A phrase is strange where it has a word of four letters or more, none of its words is known, and
    each of the longer ones has many groups of letters that no known word has: `asdf qwer`. Names of
    substances are not, since their groups are those of other words: 8 of the 31,921 phrases of the
    Patent Phrase Similarity data set are strange.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        titles = " ".join(cpc.titles().values()).lower()
        self.known = set(_WORD.findall(titles))
        self.known.update(word for word in vocabulary if _WORD.fullmatch(word))
        self.groups = {group for word in self.known for group in _groups(word)}

    def is_strange(self, phrase: str) -> bool:
        text = normalise(phrase)
        if any(letter.isdigit() for letter in text):  # such as a formula
            return False
        words = _WORD.findall(text)
        if any(word in self.known for word in words):
            return False
        long_words = [word for word in words if len(word) > LETTERS]
        return bool(long_words) and all(self._looks_strange(word) for word in long_words)

    def _looks_strange(self, word: str) -> bool:
        groups = _groups(word)
        unseen = [group for group in groups if group not in self.groups]
        return len(unseen) >= STRANGE * len(groups)

    def doubt(self, phrase: str) -> str:
        """Why a score of the phrase means little, in a sentence; "" where nothing says so."""
        if not is_latin(phrase):
            return f"{clip(phrase)}: is not in Latin letters; {ENGLISH_ONLY}"
        if self.is_strange(phrase):
            return f"{clip(phrase)}: {NOTHING_KNOWN}"
        return ""


def _groups(word: str) -> list[str]:
    """The groups of LETTERS letters of a word, whose ends count as letters.

    >>> _groups("bolt")
    ['^bo', 'bol', 'olt', 'lt$']
    """
    marked = f"^{word}$"
    return [marked[start : start + LETTERS] for start in range(len(marked) - LETTERS + 1)]
