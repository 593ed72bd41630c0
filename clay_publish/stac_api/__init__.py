"""A live STAC API over the Items of a release."""
