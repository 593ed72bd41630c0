"""From a release to its documents: card, citation, license, pictures, changelog."""

from clay_publish.cards.write import write_cards

__all__ = ["write_cards"]
