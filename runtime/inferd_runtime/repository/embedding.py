"""What a model needs to embed text: a tokenizer file beside it, token ids as input, an output that can be pooled.

Looked at when the model is loaded, so that a slip is told then and not to the first caller. The file is read here and
understood elsewhere: nothing that serves tensors needs a tokenizer.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from inferd_runtime.errors import InvalidModel
from inferd_runtime.repository.beside import read_beside
from inferd_runtime.repository.settings import EmbeddingSettings
from inferd_runtime.spec import Embedding, ModelSpec
from inferd_runtime.tensor import TensorSpec

MAX_TOKENIZER_BYTES = 64 << 20
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class _Tokenizer(msgspec.Struct):
    """As much of a tokenizer file as tells that it is one."""

    model: msgspec.Raw


_TOKENIZER = msgspec.json.Decoder(_Tokenizer)


def read_tokenizer(folder: Path, settings: EmbeddingSettings | None) -> bytes:
    """The tokenizer file, empty where none is wanted. Raises InvalidModel."""
    if settings is None:
        return b""
    data = read_beside(folder, settings.tokenizer, "tokenizer", MAX_TOKENIZER_BYTES)
    try:
        _TOKENIZER.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidModel(
            f"tokenizer {settings.tokenizer!r} is not a tokenizer.json of Hugging Face's tokenizers: {error}"
        ) from None
    return data


def embedding_of(spec: ModelSpec, settings: EmbeddingSettings | None, tokenizer: bytes) -> Embedding | None:
    """How the model embeds text, None where it does not say so. Raises InvalidModel where it cannot."""
    if settings is None:
        return None
    for tensor in spec.inputs:
        _check_input(tensor)
    if "input_ids" not in [tensor.name for tensor in spec.inputs]:
        raise InvalidModel("[embedding] wants an input 'input_ids', there is none")
    return Embedding(
        tokenizer=tokenizer,
        output=_output(spec, settings).name,
        pooling=settings.pooling,
        normalise=settings.normalise,
        max_tokens=settings.max_tokens,
        truncates=settings.truncate,
    )


def _check_input(tensor: TensorSpec) -> None:
    if tensor.name not in INPUTS:
        raise InvalidModel(f"[embedding] cannot fill the input {tensor.name!r}, only {', '.join(INPUTS)}")
    if tensor.datatype not in ("INT32", "INT64") or len(tensor.shape) != 2 or tensor.shape[0] not in (-1, 1):
        raise InvalidModel(
            f"[embedding] wants {tensor.name!r} as INT64 or INT32 of shape [-1, -1], it is {tensor.datatype} of shape "
            f"{list(tensor.shape)}"
        )


def _output(spec: ModelSpec, settings: EmbeddingSettings) -> TensorSpec:
    """The output asked for, or the first that can be pooled so."""
    rank = 2 if settings.pooling == "none" else 3
    fit = [each for each in spec.outputs if each.datatype in ("FP32", "FP16") and len(each.shape) == rank]
    for tensor in fit:
        if settings.output in ("", tensor.name):
            return tensor
    raise InvalidModel(
        f"[embedding] with pooling = {settings.pooling!r} wants an output {settings.output or 'of FP32'} with {rank} "
        f"dimensions; the outputs are {', '.join(f'{t.name} {t.datatype} {list(t.shape)}' for t in spec.outputs)}"
    )
