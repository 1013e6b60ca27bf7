"""YAML as it is read: nothing that expands, stands twice, or means another number than it shows."""

import time

import pytest
import yaml

from patsim_utils.plain_yaml import read_yaml

BOMB = """epochs: [&a [x,x,x,x,x,x,x,x,x,x], &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a], &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b],
  &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c], &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d], &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]]"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "\\*a in line 1: aliases are not read"),
        ("base: &b {epochs: 3}\nother:\n  <<: *b", "\\*b in line 3: aliases"),
        ("a: &a [*a]", "aliases are not read"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: 1\nb: 2\na: 3", "a stands twice"),
        ("a: !!python/object:os.system x", "python/object"),
        ("a: !!int x1", "invalid literal"),
        ("a: [1", "expected"),
        ("a: " + "9" * 5000, "Exceeds the limit"),
    ],
)
def test_a_text_that_is_more_than_it_shows_is_refused(text: str, message: str) -> None:
    with pytest.raises((yaml.YAMLError, ValueError), match=message):
        read_yaml(text)


def test_many_keys_take_no_time() -> None:
    began = time.monotonic()
    assert len(read_yaml("\n".join(f"k{number}: 1" for number in range(5000)))) == 5000
    assert time.monotonic() - began < 20


def test_numbers_are_what_they_say() -> None:
    numbers = "[0, 7, -3, +4, 2e-5, .5, 1., 1.5E+3, -0.0, 1e3, 0.10]"
    assert read_yaml(numbers) == [0, 7, -3, 4, 2e-5, 0.5, 1.0, 1500.0, 0.0, 1000.0, 0.1]
    assert [type(number) for number in read_yaml("[7, 1e3]")] == [int, float]
    words = ["010", "1:30", "1:30.5", "0x1F", "0b11", "1_000", "2020-01-31", "no", "on", "y", "0o7", "08.5", "=", "<<"]
    assert read_yaml("\n".join(f"- {word}" for word in words)) == words
    assert read_yaml("[true, False, null, ~, '010', \"1\", ]") == [True, False, None, None, "010", "1"]
    assert read_yaml("a:") == {"a": None}
    assert read_yaml("") is None
    assert read_yaml("[.inf, -.INF]") == [float("inf"), float("-inf")]


def test_a_very_long_text_is_refused_at_once() -> None:
    text = "".join(f"key_{number}: 1\n" for number in range(100_000))
    with pytest.raises(yaml.YAMLError, match="it has more than 100,000 characters"):
        read_yaml(text)
