"""YAML that says each thing once, as it stands there: what presets and variants are read with."""

import re
from collections import Counter

import yaml

LONGEST_TEXT = 100_000  # characters; its reading takes a second


class _PlainLoader(yaml.SafeLoader):
    """YAML that says each thing once, as it stands there, and no more than the text is long.

    Numbers are those of YAML 1.2, which is JSON's way: `010` and `1:30` stay text, which they would
    not in YAML 1.1 (8 and 90), and so do dates, and `no`. Refused are aliases, with which a few
    lines can stand for gigabytes, and a key that stands twice in a mapping, where the last one
    would count, unsaid.
    """

    yaml_implicit_resolvers: dict = {}

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            line = event.start_mark.line + 1
            raise yaml.YAMLError(f"*{event.anchor} in line {line}: aliases are not read")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        repeated = [key for key, count in Counter(keys).items() if count > 1]
        if repeated:
            raise yaml.YAMLError(f"{repeated[0]} stands twice")
        return super().construct_mapping(node, deep)


def _float(_: yaml.Loader, node: yaml.ScalarNode) -> float:
    return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


PLAIN_VALUES = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9]*)",
    "float": r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}
for _tag, _pattern in PLAIN_VALUES.items():
    _expression = re.compile(f"^(?:{_pattern})$")
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _expression, None)
_PlainLoader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_PlainLoader.add_constructor("tag:yaml.org,2002:float", _float)


def read_yaml(text: str) -> object:
    """What a text in YAML holds.

    YAMLError or ValueError where it is none, is refused by _PlainLoader, or is very long.

    >>> read_yaml("{epochs: 3, rate: 2e-5, seed: 010, day: 1:30, leak: true}")
    {'epochs': 3, 'rate': 2e-05, 'seed': '010', 'day': '1:30', 'leak': True}
    """
    if len(text) > LONGEST_TEXT:
        raise yaml.YAMLError(f"it has more than {LONGEST_TEXT:,} characters")
    try:
        return yaml.load(text, _PlainLoader)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply") from error
