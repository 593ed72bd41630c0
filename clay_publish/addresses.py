"""Where the files of a release will be found once it is published."""

from clay_publish.spec import Spec

SOURCE_COOP = "source-coop"
HUGGING_FACE = "hugging-face"


def release_address(spec: Spec) -> str | None:
    """Address of this version's root, without a slash at the end; None where the spec names none."""
    base = spec.publish.base_url
    return f"{base.rstrip('/')}/{spec.version}" if base else None


def source_coop_address(spec: Spec) -> str | None:
    """Address of this version's root on source.coop; None where it does not go there."""
    product = spec.publish.source_coop
    return f"https://data.source.coop/{product}/{spec.version}" if product else None


def alternate_addresses(spec: Spec) -> dict[str, str]:
    """Host → address of this version's root there, for hosts other than the one of `release_address`."""
    hosts = {}
    if (product := source_coop_address(spec)) is not None:
        hosts[SOURCE_COOP] = product
    if spec.publish.hugging_face:
        # On the Hub the repository's root is the version, and `v` with its number a tag.
        hosts[HUGGING_FACE] = f"https://huggingface.co/datasets/{spec.publish.hugging_face}/resolve/v{spec.version}"
    primary = release_address(spec)
    if primary is None:
        return {}
    return {name: address for name, address in hosts.items() if _host(address) != _host(primary)}


def _host(address: str) -> str:
    return address.split("/")[2]
