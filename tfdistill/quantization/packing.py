"""Kernels of few bits in 4 bits: half the bytes of an int8 LiteRT file, and the same arithmetic.

A converter writes a kernel of 2, 3 or 4 bits as int8, where its values lie on a grid of 7, 3 or 1
steps to either side. In a LiteRT file they may be INT4, two to a byte, with a scale that is as many
times larger; the runtime unpacks them. Convolutions and dense layers may, depthwise kernels not.
"""

import numpy as np

from tfdistill.utils import checks

# The most int4 holds; what a kernel of 4, 3 and 2 bits takes.
_LEVELS = (7, 3, 1)
_MOST = 127


def packed(content: bytes) -> bytes:
    """Return an int8 LiteRT file with every kernel that needs no more than 4 bits in 4 bits.

    Biases are whole numbers of steps of weight times steps of input, and are rounded to the larger
    steps: logits may fall a step to either side.

    Args:
        content: The file, of `tfdistill.export.litert.convert_quantized`.

    Raises:
        UsageError: No kernel of it is of 4 bits or fewer.

    Example:
        >>> len(content), len(packed(content))  # a ResNet-8
        (98560, 60104)
    """
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    kinds = {schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED}
    codes = [code.builtinCode for code in model.operatorCodes]
    done = 0
    for graph in model.subgraphs:
        for one in graph.operators or ():
            if codes[one.opcodeIndex] not in kinds:
                continue
            kernel, *bias = (graph.tensors[place] for place in one.inputs[1:] if place >= 0)
            if kernel.type != schema.TensorType.INT8:
                continue
            values = np.frombuffer(_bytes(model, kernel), "int8")
            if (found := on_grid(values)) is None:
                continue
            whole, step = found
            _replace(model, kernel, _two_to_a_byte(whole), step)
            kernel.type = schema.TensorType.INT4
            for each in bias:
                of_steps = np.frombuffer(_bytes(model, each), "<i4") / step
                _replace(model, each, np.rint(of_steps).astype("<i4"), step)
            done += 1
    if not done:
        raise checks.UsageError(
            "A LiteRT file in 4 bits needs kernels of 4 bits or fewer. Received: a network without "
            "such a kernel. Train quantize_aware(network, weight_bits=4), or export it as "
            "litert-int8-aware."
        )
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def on_grid(values: np.ndarray) -> tuple[np.ndarray, float] | None:
    """Return int8 values as whole numbers k of -7..7 and the step, values = round(k * step).

    Args:
        values: int8, any shape.

    Returns:
        k, int8 of the same shape, and the step, or None where there is no such grid.

    Example:
        >>> on_grid(np.array([36, -126, 18], "int8"))
        (array([2, -7, 1]), 18.0)
    """
    for levels in _LEVELS:
        # The last step of a grid lies at 127, or at the last whole multiple of a whole step.
        for step in (_MOST // levels, _MOST / levels):
            whole = np.rint(values / step)
            if np.array_equal(np.rint(whole * step), values):
                return whole.astype("int8"), float(step)
    return None


def _two_to_a_byte(whole: np.ndarray) -> np.ndarray:
    """Return int8 values of -8..7 as bytes of two, the first in the lower four bits."""
    nibbles = np.append(whole, np.zeros(whole.size % 2, "int8")).astype("uint8") & 15
    return nibbles[::2] | nibbles[1::2] << 4


def _bytes(model, tensor) -> bytes:
    return bytes(model.buffers[tensor.buffer].data)


def _replace(model, tensor, values: np.ndarray, step: float) -> None:
    """Give a tensor new values in a buffer of its own, and steps that are `step` times larger."""
    users = sum(each.buffer == tensor.buffer for one in model.subgraphs for each in one.tensors)
    if users > 1:
        model.buffers.append(type(model.buffers[0])())
        tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), "uint8")
    scale = np.asarray(tensor.quantization.scale, "float32") * np.float32(step)
    tensor.quantization.scale = scale
