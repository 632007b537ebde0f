"""An engine host whose ONNX Runtime goes wild on files of certain names; a program of the tests.

`model.<how>.onnx` is opened as it is, and its session then does what `how` says; "unlucky" is killed the first time
only. All other files are well.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import numpy as np

from inferd_runtime.engines import Array, Session, SessionOptions
from inferd_runtime.engines.host import HostedSession, HostProcess
from inferd_runtime.engines.host.child import serve
from inferd_runtime.engines.ort import OrtEngine
from inferd_runtime.errors import EngineFault

PROGRAM = (sys.executable, "-P", __file__)
MANY = 2  # rows from which "crowd" fails


class WildSession:
    """Runs a real session, and more."""

    def __init__(self, session: Session, how: str) -> None:
        self._session = session
        self._how = how
        self._eaten: list[Array] = []
        self.inputs = session.inputs
        self.outputs = session.outputs
        self.batch_symbols = session.batch_symbols

    def run(self, inputs: Sequence[Array], outputs: Sequence[int]) -> list[Array]:
        answers = self._session.run(inputs, outputs)
        match self._how:
            case "crash":
                ctypes.string_at(0)
            case "abort":
                os.abort()
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                Event().wait()
            case "eat":
                while True:
                    self._eaten.append(np.ones(4 << 20, np.uint8))
            case "nan":
                return [np.full_like(answer, np.nan) for answer in answers]
            case "stray":
                return [answer[:, ::-1].copy() for answer in answers]
            case "crowd" if len(inputs[0]) >= MANY:
                raise EngineFault("rows do not go together")
            case "picky":
                raise EngineFault("these inputs are not for me")
        return answers

    def close(self) -> None:
        self._session.close()


class WildEngine(OrtEngine):
    """ONNX Runtime but for the names of files."""

    def open(self, path: Path, options: SessionOptions) -> Session:  # type: ignore[override]
        session = super().open(path, options)
        if path.name.count(".") < 2:
            return session
        how = path.name.split(".")[1]
        if how == "unlucky":
            mark = path.with_suffix(".mark")
            how = "well" if mark.exists() else "killed"
            mark.touch()
        return WildSession(session, how)


class WildHost(HostProcess):
    """Notes what is opened in it, and has no patience with what hangs."""

    def __init__(self, engine: str, opened: list[str], memory_limit_bytes: int = 0) -> None:
        super().__init__(engine, places=1, program=PROGRAM, memory_limit_bytes=memory_limit_bytes)
        self._opened = opened

    def open(
        self, path: Path, options: SessionOptions, *, timeout_s: float = 60.0, run_timeout_s: float = 60.0
    ) -> HostedSession:
        if path.suffix == ".onnx":
            self._opened.append(path.name)
        is_hanging = ".hang." in path.name
        return super().open(path, options, timeout_s=timeout_s, run_timeout_s=0.2 if is_hanging else run_timeout_s)


if __name__ == "__main__":
    serve(sys.argv[1], {"onnxruntime": WildEngine(), "openvino": WildEngine()})
