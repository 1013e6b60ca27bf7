"""Other phrases made from one by rule: variants that mean the same, and opposites.

Variants change number, British and American spelling, or word order; opposites exchange one word, as in wired.

Rules without a dictionary make mistakes ("filter of color"): so they serve as training pairs, never as a measure.
"""

import re
from functools import cache

# Words of which either is the opposite of the other
OPPOSITES = (
    ("strong", "weak"),
    ("hard", "soft"),
    ("rigid", "flexible"),
    ("wired", "wireless"),
    ("upper", "lower"),
    ("top", "bottom"),
    ("inner", "outer"),
    ("internal", "external"),
    ("interior", "exterior"),
    ("front", "rear"),
    ("left", "right"),
    ("open", "closed"),
    ("opening", "closing"),
    ("positive", "negative"),
    ("high", "low"),
    ("hot", "cold"),
    ("heating", "cooling"),
    ("wet", "dry"),
    ("male", "female"),
    ("input", "output"),
    ("transmitter", "receiver"),
    ("transmitting", "receiving"),
    ("encoder", "decoder"),
    ("encoding", "decoding"),
    ("fixed", "movable"),
    ("stationary", "mobile"),
    ("thick", "thin"),
    ("wide", "narrow"),
    ("long", "short"),
    ("large", "small"),
    ("fast", "slow"),
    ("active", "passive"),
    ("static", "dynamic"),
    ("linear", "nonlinear"),
    ("analog", "digital"),
    ("serial", "parallel"),
    ("forward", "reverse"),
    ("clockwise", "counterclockwise"),
    ("inlet", "outlet"),
    ("loading", "unloading"),
    ("charging", "discharging"),
    ("locking", "unlocking"),
    ("locked", "unlocked"),
    ("horizontal", "vertical"),
    ("concave", "convex"),
    ("transparent", "opaque"),
    ("conductive", "insulating"),
    ("magnetic", "nonmagnetic"),
    ("acidic", "alkaline"),
    ("smooth", "rough"),
    ("full", "empty"),
    ("single", "multiple"),
    ("organic", "inorganic"),
    ("soluble", "insoluble"),
    ("hydrophilic", "hydrophobic"),
    ("symmetric", "asymmetric"),
    ("continuous", "discontinuous"),
    ("upstream", "downstream"),
    ("proximal", "distal"),
    ("volatile", "nonvolatile"),
    ("saturated", "unsaturated"),
    ("tight", "loose"),
    ("sharp", "blunt"),
    ("compression", "expansion"),
    ("acceleration", "deceleration"),
    ("woven", "nonwoven"),
    ("natural", "synthetic"),
    ("online", "offline"),
    ("synchronous", "asynchronous"),
    ("uplink", "downlink"),
    ("coarse", "fine"),
    ("visible", "invisible"),
)
LINKS = ("of", "for")
# Endings of a first word that describes the second one, and so cannot follow "of".
ADJECTIVES = ("able", "al", "ar", "ary", "ed", "ible", "ic", "ing", "ive", "less", "ly", "ous")


def other_number(phrase: str) -> str | None:
    """The last word as a plural, or as a singular where it is one: `wheel hub` -> `wheel hubs`."""
    head, _, word = phrase.rpartition(" ")
    if len(word) < 4 or not word.isalpha() or word.endswith(("ing", "ed", "ss", "us", "is")):
        return None
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif re.search(r"(s|x|z|ch|sh)es$", word):
        word = word[:-2]
    elif word.endswith("s"):
        word = word[:-1]
    elif word.endswith(("x", "z", "ch", "sh")):
        word += "es"
    elif word.endswith("y") and word[-2] not in "aeiou":
        word = word[:-1] + "ies"
    else:
        word += "s"
    return f"{head} {word}".strip()


@cache
def _american_words() -> dict[str, str]:
    """American words by British ones (Breame's list)."""
    from breame.data import spelling_constants  # here, since only a comparison of phrases needs it

    return spelling_constants.BRITISH_ENGLISH_SPELLINGS


def _with_american_words(phrase: str) -> str:
    words = _american_words()
    return re.sub("[a-z]+", lambda word: words.get(word[0], word[0]), phrase)


def american(phrase: str) -> str:
    """A phrase in American spelling: words of Breame's list, and what is built as `ionisation` or `sulphate`.

    Words that are no British spelling may change as well ("precise"), so the result serves to compare phrases only.

    >>> american("optical fibre"), american("gas ioniser"), american("sulphuric acid")
    ('optical fiber', 'gas ionizer', 'sulfuric acid')
    """
    phrase = _with_american_words(phrase).replace("sulph", "sulf")
    return re.sub(r"(\w{3})([iy])s(e|ed|er|ers|es|ing|ation|ations)\b", r"\1\2z\3", phrase)


def other_spelling(phrase: str) -> str | None:
    """American words for British ones, else `ise` for `ize`: `fibre cable` -> `fiber cable`."""
    other = _with_american_words(phrase)
    if other != phrase:
        return other
    if re.search(r"\w{4}iz(e|ed|er|ing|ation)\b", phrase):
        return re.sub(r"(\w{4})iz(e|ed|er|ing|ation)\b", r"\1is\2", phrase)
    return None


def other_order(phrase: str) -> str | None:
    """`door of vehicle` -> `vehicle door`, and `vehicle door` -> `door of vehicle`."""
    words = phrase.split()
    if len(words) == 3 and words[1] in LINKS:
        return f"{words[2]} {words[0]}"
    if len(words) != 2 or min(map(len, words)) < 4 or not phrase.replace(" ", "").isalpha():
        return None
    if words[0].endswith(ADJECTIVES):
        return None
    return f"{words[1]} of {words[0]}"


KINDS = {
    "spelling": other_spelling,
    "number": other_number,
    "order": other_order,
}


def variants(phrase: str) -> dict[str, str]:
    """Every variant of a phrase that can be made, by its kind.

    >>> variants("optical fibre")
    {'spelling': 'optical fiber', 'number': 'optical fibres'}
    """
    made = {kind: make(phrase) for kind, make in KINDS.items()}
    return {kind: text for kind, text in made.items() if text and text != phrase}


OPPOSITE_OF = {first: second for first, second in OPPOSITES} | {second: first for first, second in OPPOSITES}


def opposite(phrase: str) -> str | None:
    """The phrase with its first word that has an opposite exchanged for it.

    >>> opposite("wireless handset")
    'wired handset'
    """
    words = phrase.split()
    for number, word in enumerate(words):
        if word in OPPOSITE_OF:
            words[number] = OPPOSITE_OF[word]
            return " ".join(words)
    return None
