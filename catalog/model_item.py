"""`model.json`: the encoder as a STAC Item of its own.

Source: STAC Machine Learning Model extension 1.5.2.
"""

import re
from typing import Any

from clay_publish.catalog.item_table import STAC_VERSION
from clay_publish.catalog.overview import Overview, rfc3339
from clay_publish.release import directory as paths
from clay_publish.release import metadata
from clay_publish.release.directory import Release
from clay_publish.release.fingerprint import Fingerprint
from clay_publish.release.manifest import RunRecord, run_record
from clay_publish.spec.models import Spec
from clay_publish.storage.address import SEMVER
from clay_publish.storage.store import is_url

MLM = "https://stac-extensions.github.io/mlm/v1.5.2/schema.json"


def model_item(release: Release, overview: Overview) -> dict[str, Any]:
    """The Item: where and when the model was used here, what goes in and what comes out."""
    spec, fingerprint, run = release.spec(), release.fingerprint(), run_record(release)
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [MLM],
        "id": f"{spec.name}-model",
        "geometry": overview.polygon(),
        "bbox": list(overview.bbox),
        "properties": {
            "title": fingerprint.model_name,
            "description": f"The encoder of {spec.name} {spec.version}; extent and period are the release's.",
            "datetime": None,
            "start_datetime": rfc3339(overview.start),
            "end_datetime": rfc3339(overview.end),
            "bands": _bands(fingerprint),
            **_mlm(fingerprint, run),
        },
        "links": [
            {"rel": "derived_from", "href": fingerprint.model_link, "title": fingerprint.model_name},
            {"rel": "collection", "href": f"./{paths.COLLECTION}", "type": "application/json"},
        ],
        "collection": spec.name,
        # mlm wants the bands in the properties; STAC allows them there only where an asset has them too.
        "assets": {"model": {**_weights(spec, fingerprint), "bands": _bands(fingerprint)}},
    }


def _bands(fingerprint: Fingerprint) -> list[dict[str, Any]]:
    return [{"name": band.name, "description": f"centre at {band.wavelength:g} µm"} for band in fingerprint.bands]


def _mlm(fingerprint: Fingerprint, run: RunRecord) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "mlm:name": _name(fingerprint.model_name),
        "mlm:architecture": metadata.ARCHITECTURE.get(fingerprint.encoder, fingerprint.encoder),
        "mlm:tasks": ["similarity-search"],
        "mlm:framework": "PyTorch",
        "mlm:hyperparameters": {
            key: value for key, value in _hyperparameters(fingerprint).items() if value is not None
        },
        "mlm:input": [_input(fingerprint)],
        "mlm:output": [
            {
                "name": "embedding",
                "tasks": ["similarity-search"],
                "description": metadata.POOLING.get(fingerprint.encoder, fingerprint.encoder),
                "result": {
                    "shape": [-1, fingerprint.dimensions],
                    "dim_order": ["batch", "embedding"],
                    "data_type": "float32",
                },
            }
        ],
    }
    version = run.libraries.get("torch", "")
    if SEMVER.fullmatch(version.partition("+")[0]):
        fields["mlm:framework_version"] = version
    return fields


def _hyperparameters(fingerprint: Fingerprint) -> dict[str, Any]:
    return {
        "encoder": fingerprint.encoder,
        "encoder_version": fingerprint.encoder_version,
        "precision": fingerprint.precision,
        "metadata": fingerprint.metadata,
        **{re.sub(r"[^0-9a-zA-Z_.-]", "_", key): value for key, value in fingerprint.parameters.items()},
    }


def _input(fingerprint: Fingerprint) -> dict[str, Any]:
    return {
        "name": "chip",
        "description": f"Chips of {fingerprint.sensor}; {fingerprint.nodata}; padding: {fingerprint.padding}",
        "bands": [band.name for band in fingerprint.bands],
        "input": {
            "shape": [-1, len(fingerprint.bands), fingerprint.size, fingerprint.size],
            "dim_order": ["batch", "bands", "height", "width"],
            "data_type": "float32",
        },
        "value_scaling": [{"type": "z-score", "mean": band.mean, "stddev": band.std} for band in fingerprint.bands],
        "resize_type": None,
    }


def _name(text: str) -> str:
    """As `mlm:name` may be written: letters, digits, dot, dash, underscore, blank."""
    plain = re.sub(r"[^a-zA-Z0-9_.\-\s]+", " ", text).strip(" ._-")
    plain = re.sub(r"\s+", " ", plain)
    return plain if re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_.\-\s]+[a-zA-Z0-9]", plain) else f"model {plain} encoder"


def _weights(spec: Spec, fingerprint: Fingerprint) -> dict[str, Any]:
    """The weights where anybody can get them; else the page about the model."""
    source = spec.published()["model"].get("weights")
    asset: dict[str, Any] = {"title": fingerprint.model_name, "roles": ["mlm:model"]}
    if fingerprint.encoder == "random-features":
        page = {"href": fingerprint.model_link, "type": "text/html", "mlm:artifact_type": "generated from a seed"}
        return {**page, **asset}
    href = _public(source) if source else None
    if href is None:
        return {"href": fingerprint.model_link, "type": "text/html", "mlm:artifact_type": "torch.save", **asset}
    asset |= {"href": href, "type": "application/octet-stream", "mlm:artifact_type": _artifact(href)}
    if fingerprint.weights_sha256:
        asset["description"] = f"SHA-256 {fingerprint.weights_sha256}"
    return asset


def _public(source: str) -> str | None:
    """An http address of `hf://owner/name/path`, http(s) as it is; None for a local file."""
    if source.startswith("hf://"):
        owner, name, *rest = source.removeprefix("hf://").split("/")
        return f"https://huggingface.co/{owner}/{name}/resolve/main/{'/'.join(rest)}"
    return source if is_url(source) else None


def _artifact(href: str) -> str:
    if href.endswith(".safetensors"):
        return "safetensors.torch.save_file"
    return "torch.export.save" if href.endswith(".pt2") else "torch.save"
