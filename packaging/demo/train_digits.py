"""Train the demo's digit classifier and write everything that `inferd_agent/demo` ships for it.

    pip install torch==2.13.0 scikit-learn onnx onnxruntime   # an environment of its own, with inferd on its path
    python packaging/demo/train_digits.py [--folder agent/inferd_agent/demo]

A small convolutional network (10 000 weights) learns the 1437 training digits with small shifts, turns and strengths.
The 360 held-out digits, drawn class by class with a fixed seed, are never looked at while training or calibrating. The
float graph is written with onnx.helper, then quantised by inferd's own quantisation room. One thread and fixed seeds:
on the same torch build and CPU the files come out equal byte for byte; elsewhere the weights may differ slightly.
"""

# ruff: noqa: T201  (a script that a person runs and reads)
from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

from inferd_runtime.quantisation import quantise

SEED = 20
HELD_OUT = 360
EPOCHS = 120
BATCH = 64
CALIBRATION_ROWS = 512
OPSET = 17
HIGHEST_VALUE = 16.0


class DigitNet(nn.Module):
    """Two 3x3 convolutions, the second one halving the picture, then a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(1, 16, 3, padding=1, bias=False),
                nn.Conv2d(16, 32, 3, padding=1, stride=2, bias=False),
            ]
        )
        self.norms = nn.ModuleList([nn.BatchNorm2d(16), nn.BatchNorm2d(32)])
        self.dropout = nn.Dropout(0.2)
        self.digits = nn.Linear(32 * 4 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Raw values 0..16 [rows, 1, 8, 8] to logits [rows, 10]."""
        x = images / HIGHEST_VALUE
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.relu(norm(convolution(x)))
        return self.digits(self.dropout(x.flatten(1)))


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training images and labels, held-out images and labels; images are uint8 [rows, 8, 8]."""
    digits = load_digits()
    train_x, held_x, train_y, held_y = train_test_split(
        digits.images.astype(np.uint8),
        digits.target.astype(np.uint8),
        test_size=HELD_OUT,
        stratify=digits.target,
        random_state=SEED,
    )
    return train_x, train_y, held_x, held_y


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shift by up to a pixel, turn by up to 12 degrees, scale by up to a tenth, and vary the pen's strength."""
    rows = len(images)

    def spread(limit: float) -> torch.Tensor:
        return (torch.rand(rows, generator=generator) * 2 - 1) * limit

    angle, scale = spread(0.21), 1 + spread(0.1)
    turn = torch.stack(
        [
            torch.stack([angle.cos() * scale, -angle.sin() * scale, spread(0.25)], 1),
            torch.stack([angle.sin() * scale, angle.cos() * scale, spread(0.25)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(turn, list(images.shape), align_corners=False)
    strength = (1 + spread(0.15)).view(-1, 1, 1, 1)
    return (functional.grid_sample(images, grid, align_corners=False) * strength).clamp(0, HIGHEST_VALUE)


def train(images: np.ndarray, labels: np.ndarray) -> DigitNet:
    """The trained network, in evaluation mode."""
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    x, y = torch.from_numpy(images).float()[:, None], torch.from_numpy(labels).long()
    network = DigitNet()
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = functional.cross_entropy(network(augment(x[rows], generator)), y[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias of a convolution with its batch normalisation taken in."""
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    bias = norm.bias - norm.running_mean * scale
    return weight.detach().numpy(), bias.detach().numpy()


def write_onnx(network: DigitNet, target: Path) -> None:
    """The network as ONNX: "image" [batch, 1, 8, 8], raw values, to "probabilities" [batch, 10]."""
    weights: dict[str, np.ndarray] = {}
    nodes = []
    last = "image"
    for index, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True), 1):
        name = f"conv{index}"
        weight, weights[f"{name}.bias"] = folded(convolution, norm)
        # The scaling of the input is part of the first weights.
        weights[f"{name}.weight"] = weight / np.float32(HIGHEST_VALUE) if index == 1 else weight
        nodes.append(
            helper.make_node(
                "Conv",
                [last, f"{name}.weight", f"{name}.bias"],
                [f"{name}.out"],
                name,
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                strides=list(convolution.stride),
            )
        )
        nodes.append(helper.make_node("Relu", [f"{name}.out"], [f"{name}.relu"], f"{name}.relu"))
        last = f"{name}.relu"
    weights["digits.weight"] = np.ascontiguousarray(network.digits.weight.detach().numpy().T)
    weights["digits.bias"] = network.digits.bias.detach().numpy()
    nodes += [
        helper.make_node("Flatten", [last], ["features"], "flatten", axis=1),
        helper.make_node("Gemm", ["features", "digits.weight", "digits.bias"], ["logits"], "digits"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    model.producer_name = "inferd packaging/demo/train_digits.py"
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, target)


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of digits that ONNX Runtime names rightly with the model at `path`."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (probabilities,) = session.run(None, {"image": images[:, None].astype(np.float32)})
    return float((probabilities.argmax(1) == labels).mean())


def main() -> None:
    """Train, write, quantise, and print what came out."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[2] / "agent" / "inferd_agent" / "demo"
    arguments.add_argument("--folder", type=Path, default=default)
    folder: Path = arguments.parse_args().folder
    version = folder / "models" / "digits" / "1"
    version.mkdir(parents=True, exist_ok=True)
    train_x, train_y, held_x, held_y = split()
    network = train(train_x, train_y)
    parent, child = version / "model.fp32.onnx", version / "model.int8.onnx"
    write_onnx(network, parent)
    sample = train_x[:CALIBRATION_ROWS, None].astype(np.float32)
    report = quantise(parent, child, ({"image": row} for row in np.split(sample, 8)))
    np.savez_compressed(folder / "digits_heldout.npz", images=held_x, labels=held_y)
    for path in (parent, child):
        print(
            f"{path.name}: {path.stat().st_size} bytes, training {accuracy(path, train_x, train_y):.2%}, "
            f"held-out {accuracy(path, held_x, held_y):.2%}"
        )
    print(f"quantised {report.quantised}, left {report.left}, similarity {report.similarity}")


if __name__ == "__main__":
    main()
