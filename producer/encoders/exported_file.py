"""Opening exported models: ONNX with onnxruntime, `.pt2` with torch.

Source: https://onnx.ai, https://docs.pytorch.org/docs/stable/export.html.
"""

import tempfile
from collections.abc import Callable

import numpy as np
import torch
from torch.export.passes import move_to_device_pass

from clay_publish.errors import EncoderError, MissingExtraError
from clay_publish.producer.encoders.base import Floats
from clay_publish.producer.encoders.device import resolve_device
from clay_publish.producer.encoders.weights import Weights

Run = Callable[[Floats], Floats]
"""[B, C, S, S] → the first output."""


def open_exported(weights: Weights, *, pinned: bool) -> tuple[Run, str]:
    """A function that runs the model, and the device it runs on.

    `pinned` says that the spec names the file's hash: without it a `.pt2` is not opened, as opening it runs what it
    says.

    Raises:
        EncoderError: neither `.onnx` nor `.pt2`, damaged, or not whole in this one file.
        MissingExtraError: onnxruntime is needed and not installed.
    """
    if weights.path.suffix == ".onnx":
        return _open_onnx(weights)
    if weights.path.suffix != ".pt2":
        raise EncoderError(str(weights.path), f"ends in {weights.path.suffix or 'nothing'}", ".onnx or .pt2")
    if not pinned:
        raise EncoderError(
            str(weights.path),
            "is a program, not just numbers, and the spec does not pin it",
            f"model.sha256: {weights.sha256}",
            "Add it if you trust the file; or use ONNX.",
        )
    return _open_pt2(weights)


def _open_onnx(weights: Weights) -> tuple[Run, str]:
    try:
        import onnxruntime  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise MissingExtraError(
            str(weights.path), "needs onnxruntime, which is not installed", fix="pip install 'clay-publish[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # several chips are embedded at a time, each by one thread
    wanted = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    # Weights in other files are not covered by the hash: let them be looked for where there are none.
    with tempfile.TemporaryDirectory() as nothing:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", nothing)
        try:
            session = onnxruntime.InferenceSession(weights.path.read_bytes(), options, providers=providers)
        except Exception as error:  # onnxruntime's errors share no other root
            reason = str(error).strip().partition("\n")[0]
            raise EncoderError(
                str(weights.path), f"cannot be opened ({reason})", "a model whose weights lie in this one file"
            ) from error
    name = session.get_inputs()[0].name

    def run(pixels: Floats) -> Floats:
        vectors: Floats = np.asarray(session.run(None, {name: pixels})[0], dtype=np.float32)
        return vectors

    return run, "cuda" if session.get_providers()[0].startswith("CUDA") else "cpu"


def _open_pt2(weights: Weights) -> tuple[Run, str]:
    device = resolve_device()
    try:
        program = torch.export.load(weights.path)
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        module = program.module()
    except Exception as error:  # a damaged file makes torch stumble over anything
        reason = str(error).strip().partition("\n")[0]
        raise EncoderError(str(weights.path), f"cannot be opened ({reason})", "a file of torch.export.save") from error

    def run(pixels: Floats) -> Floats:
        with torch.inference_mode():
            given = module(torch.from_numpy(pixels).to(device))
        first = given if isinstance(given, torch.Tensor) else next(iter(given))
        vectors: Floats = first.float().cpu().numpy()
        return vectors

    return run, str(device)
