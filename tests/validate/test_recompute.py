"""`validate --recompute`: vectors are computed again from the published imagery with the published model."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from breakage import IMAGERY, Broken

from clay_publish.producer.recompute import recompute
from clay_publish.release.directory import Release
from clay_publish.validate.checks import check_release
from clay_publish.validate.context import Recompute
from clay_publish.validate.rules.outputs import made_again

Run = Callable[..., "CompletedProcess[str]"]
ASKED = ("--quiet", "--recompute", "3")


@pytest.mark.parametrize("kind", ["small", "utm8", "composite", pytest.param("beside", marks=pytest.mark.slow)])
def test_a_good_release_is_reproduced(
    kind: str, good: Callable[[str], Path], run: Run, golden_checkpoint: Path
) -> None:
    weights = ("--weights", golden_checkpoint) if kind == "beside" else ()
    imagery = good(kind).parents[1] if kind == "composite" else IMAGERY
    where = ("validate", good(kind), *ASKED, "--only", "VEC023", "--imagery", imagery, *weights, "--verbose")
    said = run(*where).stdout
    assert "VEC023 passed on 3 of " in said
    assert "could not be checked" not in said


def test_invented_vectors_are_found(broken: Callable[[str], Broken], run: Run) -> None:
    release = broken("small")
    release.vectors(lambda v: np.roll(v, 1, axis=1))
    release.settle()
    said = run("validate", release.folder, *ASKED, "--only", "VEC023", "--imagery", IMAGERY, code=1).stdout
    assert "VEC023" in said
    assert "with the vector computed again" in said


def test_imagery_that_cannot_be_read_is_not_checked(good: Callable[[str], Path], run: Run, tmp_path: Path) -> None:
    made = run("validate", good("small"), *ASKED, "--only", "VEC023", "--imagery", tmp_path, code=2)
    assert "VEC023 not checked" in made.stdout


def test_gaps_whose_imagery_cannot_be_read_are_not_checked(
    good: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    release = Release(str(good("small")))
    monkeypatch.setattr(made_again, "_gaps", lambda _: iter([(b"", "a gap", "cloud")]))
    again = Recompute(3, partial(recompute, release.spec(), release.fingerprint(), imagery=str(IMAGERY)))
    report = check_release(release, sample=64, only=["VEC023"], recompute=again)
    assert report.checked["VEC023"] == "not checked: the imagery of none of 1 gaps can be read"


def test_another_model_is_not_compared(good: Callable[[str], Path], run: Run, golden_checkpoint: Path) -> None:
    weights = golden_checkpoint.with_name("nowhere.ckpt")
    made = run("validate", good("beside"), *ASKED, "--only", "VEC023", "--weights", weights, code=2)
    assert "VEC023 not checked" in made.stdout


def test_options_of_recomputing_need_it(good: Callable[[str], Path], run: Run) -> None:
    run("validate", good("small"), "--imagery", IMAGERY, code=2)
