"""From a release to its documents: card, citation, license, pictures, changelog."""

from clay_publish.cards.write import card_documents, write_cards

__all__ = ["card_documents", "write_cards"]
