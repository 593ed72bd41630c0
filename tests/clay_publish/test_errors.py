import pickle

import pytest

from clay_publish import errors


def test_an_error_says_where_what_and_the_way_out() -> None:
    error = errors.ImageryError("item a", "has no band red", "ten bands", "Choose another sensor.")
    assert str(error) == "item a: has no band red (expected ten bands). Choose another sensor."
    assert str(errors.StoreError("x", "does not exist")) == "x: does not exist."


KINDS = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_every_error_has_one_root_and_crosses_processes(kind: type[errors.ClayPublishError]) -> None:
    error = pickle.loads(pickle.dumps(kind("a", "b", "c", "d")))  # noqa: S301 - our own bytes
    assert isinstance(error, errors.ClayPublishError)
    assert (error.where, error.found, error.expected, error.fix, error.exit_code) == ("a", "b", "c", "d", 2)
