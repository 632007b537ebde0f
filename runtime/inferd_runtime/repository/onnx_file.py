"""Reads the structure of an ONNX file: operators, tensors, inputs and outputs; never a tensor's values.

A small protobuf walker over a memory map. The file is not trusted: nesting, field counts and name lengths are bounded,
every length is checked against the message around it, every failure is InvalidModel. Field numbers are onnx.proto's.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inferd_runtime.errors import InvalidModel

MAX_DEPTH = 16  # graphs within graphs
MAX_FIELDS = 2_000_000  # fields looked at in one file
MAX_NAME_BYTES = 4096
MAX_DIM = 1 << 48
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1

# TensorProto.DataType -> bytes of an element.
_ELEMENT_BYTES = {
    1: 4.0, 2: 1.0, 3: 1.0, 4: 2.0, 5: 2.0, 6: 4.0, 7: 8.0, 9: 1.0, 10: 2.0, 11: 8.0, 12: 4.0, 13: 8.0, 14: 8.0,
    15: 16.0, 16: 2.0, 17: 1.0, 18: 1.0, 19: 1.0, 20: 1.0, 21: 0.5, 22: 0.5, 23: 0.5,
}  # fmt: skip
_FLOATS = {1, 10, 11, 16}
_BYTE_TYPES = {2, 3, 21, 22}

Buffer = mmap.mmap | bytes
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant: its declared type and shape."""

    name: str
    data_type: int
    dims: tuple[int, ...]
    location: str = ""

    @property
    def elements(self) -> int:
        return min(math.prod(self.dims), MAX_DIM)

    @property
    def nbytes(self) -> int:
        return int(self.elements * _ELEMENT_BYTES.get(self.data_type, 0.0))

    @property
    def is_byte(self) -> bool:
        """Whether it holds integers of 8 bits or less."""
        return self.data_type in _BYTE_TYPES

    @property
    def is_float(self) -> bool:
        return self.data_type in _FLOATS


@dataclass(frozen=True, slots=True)
class Node:
    """An operator with the names it takes; `output` is its first."""

    op: str
    domain: str
    inputs: tuple[str, ...]
    output: str

    def input(self, index: int) -> str:
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True, slots=True)
class Value:
    """A graph input or output; a dimension is its size, its symbol, or "" where the file leaves it open."""

    name: str
    dims: tuple[int | str, ...]


@dataclass(slots=True)
class Graph:
    """A whole model: graphs within the main one are folded in, `inputs` and `outputs` are the main graph's."""

    opset: int = 0
    nodes: list[Node] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    external: set[str] = field(default_factory=set)

    @property
    def locations(self) -> tuple[str, ...]:
        return tuple(sorted(self.external))


def read_onnx(path: Path) -> Graph:
    """The structure of the ONNX file at `path`; raises InvalidModel."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise InvalidModel(f"{path.name} is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Walker(data, path.name).model()
    except OSError as error:
        raise InvalidModel(f"{path.name} cannot be read: {error.strerror}") from None
    except ValueError as error:  # mmap of a file that shrank
        raise InvalidModel(f"{path.name} cannot be read: {error}") from None


class _Walker:
    """One pass over one file; `fields` is what is left of the bound."""

    def __init__(self, data: Buffer, name: str) -> None:
        self._data = data
        self._name = name
        self._fields = MAX_FIELDS
        self._graph = Graph()

    def model(self) -> Graph:
        found = False
        for number, wire, value in self._read((0, len(self._data))):
            if number == 7 and wire == _BYTES:
                found = True
                self._subgraph(value, 0, is_main=True)
            elif number == 8 and wire == _BYTES:
                self._opset(value)
            elif number == 25 and wire == _BYTES:
                self._function(value)
        if not found:
            raise self._broken("no graph in it")
        return self._graph

    def _opset(self, span: Span) -> None:
        domain, version = "", 0
        for number, wire, value in self._read(span):
            if number == 1 and wire == _BYTES:
                domain = self._text(value)
            elif number == 2 and wire == _VARINT:
                version = value[0]
        if domain in ("", "ai.onnx"):
            self._graph.opset = version

    def _function(self, span: Span) -> None:
        for number, wire, value in self._read(span):
            if number == 7 and wire == _BYTES:
                self._node(value, 1)

    def _subgraph(self, span: Span, depth: int, *, is_main: bool = False) -> None:
        if depth > MAX_DEPTH:
            raise self._broken(f"graphs nested deeper than {MAX_DEPTH}")
        graph = self._graph
        for number, wire, value in self._read(span):
            if wire != _BYTES:
                continue
            if number == 1:
                self._node(value, depth)
            elif number == 5:
                self._keep(self._tensor(value))
            elif number == 15:
                self._sparse(value)
            elif number == 11 and is_main:
                graph.inputs.append(self._value(value))
            elif number == 12 and is_main:
                graph.outputs.append(self._value(value))

    def _node(self, span: Span, depth: int) -> None:
        inputs: list[str] = []
        output = op = domain = ""
        attributes: list[Span] = []
        for number, wire, value in self._read(span):
            if wire != _BYTES:
                continue
            if number == 1:
                inputs.append(self._text(value))
            elif number == 2:
                output = output or self._text(value)
            elif number == 4:
                op = self._text(value)
            elif number == 5:
                attributes.append(value)
            elif number == 7:
                domain = self._text(value)
        self._graph.nodes.append(Node(op, domain, tuple(inputs), output))
        for attribute in attributes:
            self._attribute(attribute, output if op == "Constant" else "", depth)

    def _attribute(self, span: Span, constant: str, depth: int) -> None:
        """Tensors and graphs hang on attributes; a Constant's tensor is known by the node's output."""
        for number, wire, value in self._read(span):
            if wire != _BYTES:
                continue
            if number in (5, 10):
                self._keep(self._tensor(value, constant))
            elif number in (6, 11):
                self._subgraph(value, depth + 1)
            elif number in (22, 23):
                self._sparse(value)

    def _sparse(self, span: Span) -> None:
        for number, wire, value in self._read(span):
            if number in (1, 2) and wire == _BYTES:
                self._keep(self._tensor(value))

    def _keep(self, tensor: Tensor) -> None:
        self._graph.tensors.append(tensor)
        if tensor.location:
            self._graph.external.add(tensor.location)

    def _tensor(self, span: Span, name: str = "") -> Tensor:
        dims: list[int] = []
        data_type = 0
        location, is_external = "", False
        for number, wire, value in self._read(span):
            if number == 1:
                dims += self._dims(wire, value)
            elif number == 2 and wire == _VARINT:
                data_type = value[0]
            elif number == 8 and wire == _BYTES:
                name = name or self._text(value)
            elif number == 13 and wire == _BYTES:
                location = self._location(value) or location
            elif number == 14 and wire == _VARINT:
                is_external = value[0] == _EXTERNAL
        if is_external and not location:
            raise self._broken(f"tensor {name[:80]!r} has external data but no location")
        # A location is told even where the flag is unset: a reader more lenient than the standard may follow it.
        return Tensor(name, data_type, tuple(dims), location)

    def _dims(self, wire: int, value: Span) -> list[int]:
        """One dimension, or several packed; sizes beyond reason are capped, negative ones count as 0."""
        if wire == _VARINT:
            return [_size(value[0])]
        if wire != _BYTES:
            raise self._broken("a dimension is no integer")
        dims: list[int] = []
        at, end = value
        while at < end:
            self._spend()
            number, at = self._varint(at, end)
            dims.append(_size(number))
        return dims

    def _location(self, span: Span) -> str:
        key = text = ""
        for number, wire, value in self._read(span):
            if number == 1 and wire == _BYTES:
                key = self._text(value)
            elif number == 2 and wire == _BYTES:
                text = self._text(value)
        return text if key == "location" else ""

    def _value(self, span: Span) -> Value:
        name, dims = "", []
        for number, wire, value in self._read(span):
            if number == 1 and wire == _BYTES:
                name = self._text(value)
            elif number == 2 and wire == _BYTES:
                dims = [
                    self._dimension(dim)
                    for tensor in self._children(value, 1)
                    for shape in self._children(tensor, 2)
                    for dim in self._children(shape, 1)
                ]
        return Value(name, tuple(dims))

    def _dimension(self, span: Span) -> int | str:
        for number, wire, value in self._read(span):
            if number == 1 and wire == _VARINT:
                return _size(value[0])
            if number == 2 and wire == _BYTES:
                return self._text(value)
        return ""

    def _children(self, span: Span, wanted: int) -> Iterator[Span]:
        return (value for number, wire, value in self._read(span) if number == wanted and wire == _BYTES)

    def _text(self, span: Span) -> str:
        if span[1] - span[0] > MAX_NAME_BYTES:
            raise self._broken(f"a name longer than {MAX_NAME_BYTES} bytes")
        return bytes(self._data[span[0] : span[1]]).decode("utf-8", "replace")

    def _read(self, span: Span) -> Iterator[tuple[int, int, Span]]:
        """The fields of a message: number, wire type, and (value, 0) of a varint or where the bytes lie."""
        at, end = span
        while at < end:
            self._spend()
            key, at = self._varint(at, end)
            number, wire = key >> 3, key & 7
            if number == 0:
                raise self._broken("a field number 0")
            if wire == _VARINT:
                value, at = self._varint(at, end)
                yield number, wire, (value, 0)
                continue
            if wire == _BYTES:
                size, at = self._varint(at, end)
            elif wire == _FIXED64:
                size = 8
            elif wire == _FIXED32:
                size = 4
            else:
                raise self._broken(f"wire type {wire}")
            if size > end - at:
                raise self._broken("it ends too early")
            yield number, wire, (at, at + size)
            at += size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end and shift < 70:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, at
            shift += 7
        raise self._broken("it ends too early" if at >= end else "a number longer than ten bytes")

    def _spend(self) -> None:
        self._fields -= 1
        if self._fields < 0:
            raise self._broken(f"more than {MAX_FIELDS} fields")

    def _broken(self, what: str) -> InvalidModel:
        return InvalidModel(f"{self._name} is not a sound ONNX file: {what}")


def _size(number: int) -> int:
    """A dimension as int64 has it, without what no file can hold."""
    return 0 if number >= 1 << 63 else min(number, MAX_DIM)
