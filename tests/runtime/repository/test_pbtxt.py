"""Protobuf's text format: what is read, what is refused, and that no text does anything else."""

from __future__ import annotations

import contextlib
import math
import time

import pytest
from google.protobuf import struct_pb2, text_format
from hypothesis import given
from hypothesis import strategies as st

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.pbtxt import MAX_DEPTH, Message, Word, parse_text


def test_every_form_of_a_value_is_read() -> None:
    """Strings join and unescape, numbers have three bases, messages and lists have two forms each."""
    text = r"""
    # a comment
    name: "a" 'b\x41\303\274\n'   texts: [ "x", 'y' ];
    numbers: [ -1, 0x10, 010, 18446744073709551615 ], broken: - 1.5e3f
    kind: TYPE_FP32 is_on: true low: -inf
    inner { a: 1 } inner: < a: 2 >  inner [ { a: 3 }, { a: 4 } ]  none: []
    """
    assert parse_text(text, "p") == {
        "name": ["abAü\n"],
        "texts": ["x", "y"],
        "numbers": [-1, 16, 8, (1 << 64) - 1],
        "broken": [-1500.0],
        "kind": [Word("TYPE_FP32")],
        "is_on": [Word("true")],
        "low": [-math.inf],
        "inner": [{"a": [1]}, {"a": [2]}, {"a": [3]}, {"a": [4]}],
        "none": [],
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a", "line 1: expected ':' or '{', got the end"),
        ("\n\na 1", "line 3: expected ':' or '{', got '1'"),
        ("a {", "the name of a field or '}', got the end"),
        ("}", "the name of a field, got '}'"),
        ("a: [1 2]", "expected ',' or ']'"),
        ("a [1]", "expected ':' or '{'"),
        ("a: 'x", 'got "\'"'),
        ("a: 1e", "expected a number"),
        ("a: 0xfffffffffffffffff", "expected a number"),
        ("a: 18446744073709551616", "out of range"),
        ("a: -x", "expected a value"),
        ('a: "\\q"', r"the escape '\\\\q' is unknown"),
        ('a: "\\777"', "is unknown"),
        ('a: "\\xff"', "not UTF-8"),
        ("[a.b]: 1", "expected the name of a field"),
        ("a {" * (MAX_DEPTH + 1), "nested deeper"),
    ],
)
def test_slips_are_told_with_their_line(text: str, complaint: str) -> None:
    """The place, what was expected and what came."""
    with pytest.raises(InvalidModel, match=complaint.replace("[", r"\[").replace("{", r"\{")):
        parse_text(text, "p")


@given(st.text(alphabet=st.sampled_from("ab:{}<>[],;-#\"'\\01x.e \n"), max_size=60) | st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but InvalidModel comes out."""
    with contextlib.suppress(InvalidModel):
        assert isinstance(parse_text(text, "p"), dict)


@pytest.mark.parametrize(
    "text", ["[" * 60_000, '"\\' * 30_000, "a:" * 30_000, "-" * 60_000, "a:1" + "0" * 60_000, " " * 60_000]
)
def test_long_texts_take_no_longer_than_they_are(text: str) -> None:
    """Nothing backtracks: sixty thousand bytes of the worst are refused, or read, at once."""
    begin_s = time.process_time()
    with contextlib.suppress(InvalidModel):
        parse_text(text, "p")
    assert time.process_time() - begin_s < 5


_VALUES = st.recursive(
    st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES, st.booleans())
def test_what_protobuf_writes_is_read(value: object, as_one_line: bool) -> None:
    """The text that protobuf itself makes of a message says the same to us."""
    message = struct_pb2.ListValue()
    message.extend([value])
    found = parse_text(text_format.MessageToString(message, as_one_line=as_one_line), "p")
    assert _plain(found["values"][0]) == value


def _plain(value: object) -> object:
    """What a google.protobuf.Value in our form stands for."""
    assert isinstance(value, dict)
    fields: Message = value
    [(kind, [inner])] = fields.items()
    if kind == "list_value":
        assert isinstance(inner, dict)
        return [_plain(one) for one in inner.get("values", ())]
    return inner == "true" if kind == "bool_value" else inner
