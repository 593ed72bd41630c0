"""Where the weights of a model lie, and whether they are the ones that were asked for."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from clay_publish.errors import EncoderError
from clay_publish.spec import Model
from clay_publish.store import is_url

_HUB = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)")


@dataclass(frozen=True)
class Weights:
    """A model's file on this machine."""

    path: Path
    sha256: str


def find_weights(model: Model) -> Weights:
    """Find the file that `model.weights` names, fetch it from the Hub where it lies there, and hash it.

    Raises:
        EncoderError: no weights are named, they are missing, or their hash is not `model.sha256`.
    """
    if model.weights is None:
        raise EncoderError(
            "model.weights", "is missing", f"a file for the encoder {model.encoder}, or hf://OWNER/REPO/FILE"
        )
    path = local_file(model.weights)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EncoderError(str(path), f"cannot be read ({error.strerror})", "the model's file") from error
    if model.sha256 not in {None, digest}:
        raise EncoderError(
            str(path), f"has the SHA-256 {digest}", f"{model.sha256}, as model.sha256 says", "These are other weights."
        )
    return Weights(path, digest)


def local_file(address: str) -> Path:
    """Where a path or `hf://` address lies on this machine, fetched if need be.

    Raises:
        EncoderError: another kind of address, or the Hub does not give it.
    """
    if not is_url(address):
        return Path(address)
    found = _HUB.fullmatch(address)
    if found is None:
        raise EncoderError(
            "model.weights", f"is {address}", "a file, or hf://OWNER/REPO/FILE or hf://OWNER/REPO@REVISION/FILE"
        )
    try:
        return Path(hf_hub_download(found["repo"], found["file"], revision=found["revision"]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise EncoderError(
            address, f"cannot be fetched ({' '.join(str(error).split())})", "a file on the Hub"
        ) from error
