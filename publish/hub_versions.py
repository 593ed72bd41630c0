"""Which versions a repository on the Hub has: its tags, and a second tag on those that must not be used."""

from clay_publish.errors import PublishError
from clay_publish.publish.catalog import Version, Versions
from clay_publish.publish.hub_repository import HubRepository

_YANKED = "-yanked"


def hub_versions(repository: HubRepository) -> Versions:
    """The versions that are out: the tags.

    Raises:
        PublishError: there is no such repository.
    """
    refs = repository.refs()
    if refs is None:
        raise PublishError(repository.where, "does not exist, or this account may not see it")
    names = [tag[1:] for tag in refs.tags if tag.startswith("v") and not tag.endswith(_YANKED)]
    found = Versions(name=repository.name, title=repository.name, versions=[])
    for name in names:
        yanked = "see the tag" if f"v{name}{_YANKED}" in refs.tags else None
        found = found.with_version(Version(version=name, yanked=yanked))
    return found


def yank_on_hub(repository: HubRepository, version: str, reason: str) -> None:
    """Mark a version with a second tag, whose message is the reason."""
    refs = repository.refs()
    tag = f"v{version}"
    if refs is not None and f"{tag}{_YANKED}" not in refs.tags:
        repository.tag(f"{tag}{_YANKED}", refs.tags[tag], reason)
