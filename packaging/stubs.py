"""Writes agent/inferd_agent/grpc/messages.py from the .proto files beside it: `make stubs`.

protoc's own Python is not used: it puts its messages in the process's one default pool, where they clash with those of
any other client of the same protocol, and demands a runtime as new as the generator.
"""

from __future__ import annotations

import sys
import tempfile
from base64 import b85encode
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

FOLDER = Path(__file__).resolve().parents[1] / "agent" / "inferd_agent" / "grpc"
PROTOS = ("service.proto", "health.proto")
OUTPUT = FOLDER / "messages.py"
_HEAD = '''\
"""The messages of service.proto and health.proto. Written by `make stubs`: change the .proto files, not this one.

They live in a pool of their own, so that they clash with no other package that knows the same protocol.
"""

from __future__ import annotations

from base64 import b85decode
from typing import Any

from google.protobuf import descriptor_pool, message_factory

_POOL = descriptor_pool.DescriptorPool()
_FILES = (
'''
_TAIL = """\
)
for _file in _FILES:
    _POOL.AddSerializedFile(b85decode(_file))


def _message(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(name))


"""


def render() -> str:
    """The module's text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "descriptors"
        arguments = ["protoc", f"-I{FOLDER}", f"--descriptor_set_out={path}", *PROTOS]
        if protoc.main(arguments):
            raise SystemExit("protoc found an error, see above")
        found = FileDescriptorSet.FromString(path.read_bytes())
    return _HEAD + "".join(_literal(each.SerializeToString()) for each in found.file) + _TAIL + _names(found)


def _literal(data: bytes) -> str:
    text = b85encode(data).decode()
    lines = [f'    b"{text[at : at + 110]}"' for at in range(0, len(text), 110)]
    return "\n".join(lines) + ",\n"


def _names(found: FileDescriptorSet) -> str:
    names = [(each.name, f"{file.package}.{each.name}") for file in found.file for each in file.message_type]
    return "".join(f'{name} = _message("{full}")\n' for name, full in sorted(names))


if __name__ == "__main__":
    OUTPUT.write_text(render())
    sys.stdout.write(f"wrote {OUTPUT.relative_to(Path.cwd())}\n")
