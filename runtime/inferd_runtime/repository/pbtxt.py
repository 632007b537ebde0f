"""Protobuf's text format, as much of it as a configuration needs, read strictly into plain values.

A message is a dict from field names to the lists of values given to them, in their order; what the fields mean is not
known here. Extensions and Any are refused. Time and memory are linear in the text, and nesting is bounded.
"""

from __future__ import annotations

import re

from inferd_runtime.errors import InvalidModel

MAX_DEPTH = 16

_TOKEN = re.compile(
    r"""(?P<space>(?:\s|\#[^\n]*+)++)
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*+)
    |(?P<number>(?=\.?[0-9])(?:[eE][+-]|[0-9A-Za-z_.])++)
    |(?P<text>"(?:[^"\\\n]|\\[^\n])*+"|'(?:[^'\\\n]|\\[^\n])*+')
    |(?P<sign>[{}<>\[\]:,;-])""",
    re.VERBOSE | re.ASCII,
)
_INTEGER = re.compile(r"0[xX](?P<hex>[0-9a-fA-F]{1,16})|(?P<octal>0[0-7]{1,22})|(?P<decimal>0|[1-9][0-9]{0,19})")
_FLOAT = re.compile(r"((?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,5})?)[fF]?")
_ESCAPE = re.compile(r"\\(?:([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_ESCAPED = {
    "a": b"\a", "b": b"\b", "f": b"\f", "n": b"\n", "r": b"\r", "t": b"\t", "v": b"\v", "\\": b"\\", "'": b"'",
    '"': b'"', "?": b"?",
}  # fmt: skip
_CLOSES = {"{": "}", "<": ">"}


class Word(str):
    """A bare identifier: the name of an enum's value, or true or false."""

    __slots__ = ()


Value = Word | str | int | float | dict[str, list["Value"]]
Message = dict[str, list[Value]]


def parse_text(text: str, place: str) -> Message:
    """The message that `text` holds; `place` begins the text of every InvalidModel."""
    return _Parser(text, place).message("", 0)


class _Parser:
    """Reads token by token; `_kind` and `_token` are what comes next, both empty at the end."""

    def __init__(self, text: str, place: str) -> None:
        self._text = text
        self._place = place
        self._at = self._end = 0
        self._kind = self._token = ""
        self._advance()

    def message(self, close: str, depth: int) -> Message:
        """The fields up to `close`, which is taken too."""
        if depth > MAX_DEPTH:
            raise self._fault(f"messages are nested deeper than {MAX_DEPTH}")
        fields: Message = {}
        while self._token != close:
            if self._kind != "word":
                raise self._fault(f"expected the name of a field{f' or {close!r}' if close else ''}")
            name = self._take()
            fields.setdefault(name, []).extend(self._values(depth))
            if self._is_sign(",", ";"):
                self._take()
        self._take()
        return fields

    def _values(self, depth: int) -> list[Value]:
        has_colon = self._accept(":")
        if not self._accept("["):
            return [self._value(depth, has_colon)]
        values: list[Value] = []
        if self._accept("]"):
            return values
        while True:
            values.append(self._value(depth, has_colon))
            if self._accept("]"):
                return values
            if not self._accept(","):
                raise self._fault("expected ',' or ']'")

    def _value(self, depth: int, has_colon: bool) -> Value:
        if self._is_sign("{", "<"):
            return self.message(_CLOSES[self._take()], depth + 1)
        if not has_colon:
            raise self._fault("expected ':' or '{'")
        if self._kind == "text":
            return self._string()
        is_negative = self._accept("-")
        if self._kind == "number":
            number = self._number()
            return -number if is_negative else number
        if self._kind == "word":
            word = self._take()
            if not is_negative:
                return Word(word)
            if word.lower() in ("inf", "infinity", "nan"):
                return -float(word)
        raise self._fault("expected a value")

    def _number(self) -> int | float:
        token = self._token
        if whole := _INTEGER.fullmatch(token):
            base = {"hex": 16, "octal": 8, "decimal": 10}[whole.lastgroup or ""]
            value = int(whole[whole.lastgroup or ""], base)
            if value >= 1 << 64:
                raise self._fault("a number is out of range")
        elif broken := _FLOAT.fullmatch(token):
            self._take()
            return float(broken[1])
        else:
            raise self._fault("expected a number")
        self._take()
        return value

    def _string(self) -> str:
        """Strings that follow each other are one."""
        whole = bytearray()
        while self._kind == "text":
            raw, done = self._token[1:-1], 0
            for escape in _ESCAPE.finditer(raw):
                whole += raw[done : escape.start()].encode() + self._unescape(escape)
                done = escape.end()
            whole += raw[done:].encode()
            self._take()
        try:
            return whole.decode()
        except UnicodeDecodeError:
            raise self._fault("a string is not UTF-8") from None

    def _unescape(self, escape: re.Match[str]) -> bytes:
        octal, short, long, longer, letter = escape.groups()
        try:
            if letter is not None:
                return _ESCAPED[letter]
            if octal is not None or short is not None:
                return bytes([int(octal, 8) if octal is not None else int(short, 16)])
            return chr(int(long or longer, 16)).encode()
        except (KeyError, ValueError, OverflowError):
            raise self._fault(f"the escape {escape[0][:12]!r} is unknown") from None

    def _is_sign(self, *signs: str) -> bool:
        return self._kind == "sign" and self._token in signs

    def _accept(self, sign: str) -> bool:
        found = self._is_sign(sign)
        if found:
            self._take()
        return found

    def _take(self) -> str:
        token = self._token
        self._advance()
        return token

    def _advance(self) -> None:
        """On to the next token that is no space."""
        self._at = self._end
        found = _TOKEN.match(self._text, self._at)
        if found is not None and found.lastgroup == "space":
            self._at = found.end()
            found = _TOKEN.match(self._text, self._at)
        if found is not None:
            self._kind, self._token, self._end = found.lastgroup or "", found[0], found.end()
        elif self._at < len(self._text):
            self._token = self._text[self._at : self._at + 1]
            raise self._fault("expected something else")
        else:
            self._kind = self._token = ""

    def _fault(self, expected: str) -> InvalidModel:
        line = self._text.count("\n", 0, self._at) + 1
        came = repr(self._token[:40]) if self._token else "the end"
        return InvalidModel(f"{self._place}, line {line}: {expected}, got {came}")
