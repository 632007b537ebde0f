"""Tiny embedders whose vectors can be worked out by hand: a table row for each token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel

from tests.onnx_models import save, value

WORDS = ("[UNK]", "[CLS]", "the", "cat", "sat", "on", "mat", "dog")
SIZE = 4
TABLE = np.random.default_rng(5).standard_normal((len(WORDS), SIZE)).astype(np.float32)


def tokenizer() -> str:
    """A tokenizer.json of whole words, with a special token before each text."""
    made = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    # Files often come with lengths of their own, which are not to count.
    made.enable_padding(length=32)
    made.enable_truncation(3)
    return str(made.to_str())


def embedder(folder: Path, settings: str = "", *, has_mask: bool = True) -> Path:
    """A model folder: `hidden` has the table's row for each token, and rubbish where the mask is 0."""
    ids = value("input_ids", TensorProto.INT64, ("N", "T"))
    hidden = value("hidden", TensorProto.FLOAT, ("N", "T", SIZE))
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    inputs = [ids]
    constants: dict[str, np.ndarray[Any, Any]] = {"table": TABLE}
    if has_mask:
        inputs.append(value("attention_mask", TensorProto.INT64, ("N", "T")))
        constants["last"] = np.array([2], np.int64)
        constants["one"] = np.array(1, np.int64)
        constants["rubbish"] = np.array(1000, np.float32)
        nodes += [
            helper.make_node("Sub", ["one", "attention_mask"], ["outside"]),
            helper.make_node("Cast", ["outside"], ["far"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["far", "last"], ["wide"]),
            helper.make_node("Mul", ["wide", "rubbish"], ["noise"]),
            helper.make_node("Add", ["rows", "noise"], ["hidden"]),
        ]
    else:
        nodes.append(helper.make_node("Identity", ["rows"], ["hidden"]))
    save(folder / "1" / "model.onnx", nodes, inputs, [hidden], constants)
    (folder / "tokenizer.json").write_text(tokenizer())
    (folder / "model.toml").write_text(f'engine = "onnxruntime"\n[embedding]\nmax_tokens = 40\n{settings}')
    return folder


def vector(ids: list[int], pooling: str = "mean") -> np.ndarray[Any, Any]:
    """What the embedder should give, normalised."""
    rows = TABLE[ids]
    found = rows.mean(axis=0) if pooling == "mean" else rows[0]
    return np.asarray(found / np.linalg.norm(found))
