"""Quantisation: make an INT8 variant of an ONNX model from calibration inputs. Nothing that serves imports this room.

`quantise` reads one ONNX file and writes another, in the form that both engines take: static QuantizeLinear and
DequantizeLinear pairs, signed weights per channel, unsigned activations, opset 13 or later. It needs the extra
`inferd[quantize]`; importing this room does not.
"""

from inferd_runtime.quantisation.static import DEFAULT_OPERATORS, Left, Report, quantise

__all__ = ["DEFAULT_OPERATORS", "Left", "Report", "quantise"]
