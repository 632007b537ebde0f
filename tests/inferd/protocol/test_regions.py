"""Tensors that lie in regions: what is sent of them, and that it is read as it was meant."""

from __future__ import annotations

import json

import numpy as np
import pytest

from inferd.protocol import (
    OutputRequest,
    ProtocolError,
    Reference,
    RegionRef,
    Request,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    read_reference,
)
from inferd.protocol.datatypes import BYTES

PLACE = RegionRef("r", 64, 8)
X = np.array([1.5, -2.5], np.float32)


def test_request_as_the_python_client_writes_it() -> None:
    """An input in a region takes no section of the body, and those around it are found; an absent offset is 0."""
    header = (
        b'{"inputs":[{"name":"a","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}},'
        b'{"name":"x","shape":[2],"datatype":"FP32","parameters":{"shared_memory_region":"r",'
        b'"shared_memory_byte_size":8}},{"name":"t","shape":[3],"datatype":"BYTES","parameters":'
        b'{"shared_memory_region":"r","shared_memory_offset":8,"shared_memory_byte_size":20}},'
        b'{"name":"b","shape":[1],"datatype":"UINT8","parameters":{"binary_data_size":1}}],'
        b'"outputs":[{"name":"y","parameters":{"shared_memory_region":"s","shared_memory_byte_size":4096,'
        b'"shared_memory_offset":128}},{"name":"z","parameters":{"binary_data":true}}]}'
    )
    request = decode_request(header + b"\x07\x09", len(header))
    assert {name: array.tolist() for name, array in request.inputs.items()} == {"a": [7], "b": [9]}
    assert request.references == (
        Reference("x", np.dtype(np.float32), (2,), 2, RegionRef("r", 0, 8)),
        Reference("t", BYTES, (3,), 3, RegionRef("r", 8, 20)),
    )
    assert request.outputs == (OutputRequest("y", True, 0, RegionRef("s", 128, 4096)), OutputRequest("z", True))


@pytest.mark.parametrize("binary", [True, False])
def test_request_round_trip(binary: bool) -> None:
    """Places that are written are read back, beside inputs and outputs that are sent, in both forms."""
    outputs = [OutputRequest("y", place=RegionRef("s", 0, 400)), OutputRequest("z", binary)]
    text = np.array([b"ab", b""], object)
    places = {"x": PLACE, "t": RegionRef("r", 0, 10)}
    length, buffers = encode_request({"x": X, "t": text, "i": X}, outputs, binary=binary, places=places, id="7")
    request = decode_request(b"".join(buffers), length)
    assert request.id == "7"
    assert [(each.name, each.shape, each.place) for each in request.references] == [
        ("x", (2,), PLACE),
        ("t", (2,), places["t"]),
    ]
    assert request.inputs["i"].tolist() == X.tolist()
    assert request.outputs[0].place == RegionRef("s", 0, 400)
    assert request.outputs[1] == outputs[1]


def test_request_of_nothing_but_references() -> None:
    """Where all lies in regions the body is the header alone."""
    length, buffers = encode_request({"x": X}, [OutputRequest("y", place=PLACE)], places={"x": PLACE})
    assert length == len(b"".join(buffers))
    request = decode_request(b"".join(buffers), length)
    assert not request.inputs
    assert request.references[0].place == PLACE


def test_array_that_does_not_fit_its_place_is_not_sent() -> None:
    """The writer compares size and dtype, since the reader would refuse them or read nonsense."""
    with pytest.raises(
        ProtocolError, match=r"'x': shape .* takes 12 bytes, shared_memory_byte_size in region 'r' is 8"
    ):
        encode_request({"x": np.zeros(3, np.float32)}, places={"x": PLACE})
    with pytest.raises(ProtocolError, match="in region 'r' its dtype must be float32, not >f4"):
        encode_request({"x": np.zeros(2, ">f4")}, places={"x": PLACE})


def test_answer_tells_only_what_an_output_in_a_region_is() -> None:
    """Name, datatype and shape, neither data nor parameters, beside outputs in both other forms."""
    wanted = (OutputRequest("y", True, 0, PLACE), OutputRequest("z", True), OutputRequest("w"))
    length, buffers = encode_response(Request(outputs=wanted), "m", "1", {"y": X, "z": X, "w": X})
    told = json.loads(b"".join(buffers)[:length])["outputs"]
    assert told[0] == {"name": "y", "datatype": "FP32", "shape": [2]}
    response = decode_response(b"".join(buffers), length, places={"y": PLACE})
    assert response.references == (Reference("y", np.dtype(np.float32), (2,), 2, PLACE),)
    assert {name: array.tolist() for name, array in response.outputs.items()} == {"z": X.tolist(), "w": X.tolist()}


def test_answer_with_all_in_regions_is_plain_json() -> None:
    """Without a single binary byte there is no header length."""
    length, buffers = encode_response(Request(outputs=(OutputRequest("y", True, 0, PLACE),)), "m", "1", {"y": X})
    assert length is None
    assert len(buffers) == 1


def answer(parameters: str) -> bytes:
    tensor = f'{{"name":"y","datatype":"FP32","shape":[2]{parameters}}}'
    return f'{{"model_name":"m","outputs":[{tensor}]}}'.encode()


def test_answers_of_other_servers() -> None:
    """One that names the region again is not believed another; one that sends the output all the same is read."""
    named = answer(',"parameters":{"shared_memory_region":"other","shared_memory_byte_size":8}')
    assert decode_response(named, places={"y": PLACE}).references[0].place == PLACE
    sent = decode_response(answer(',"data":[1,2]'), places={"y": PLACE})
    assert sent.references == ()
    assert sent.outputs["y"].tolist() == [1, 2]
    with pytest.raises(ProtocolError, match="'y' is said to lie in a region that nobody offered"):
        decode_response(named)
    with pytest.raises(ProtocolError, match="'y' has neither data"):
        decode_response(answer(""))


def test_reference_is_read_from_the_bytes_of_its_place() -> None:
    """As from a section of a body, read-only."""
    reference = Reference("x", np.dtype(np.float32), (2,), 2, PLACE)
    array = read_reference(reference, X.tobytes())
    assert array.tolist() == X.tolist()
    assert not array.flags.writeable
    text = Reference("t", BYTES, (2,), 2, RegionRef("r", 0, 10))
    assert read_reference(text, b"\x02\0\0\0ab\0\0\0\0").tolist() == [b"ab", b""]
    with pytest.raises(ProtocolError, match="'t': element 1 claims 9 bytes"):
        read_reference(text, b"\x02\0\0\0ab\x09\0\0\0")
