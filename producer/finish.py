"""The end of a run: what is made of all its units together, and the record that says it is there."""

import hashlib
from collections import Counter
from collections.abc import Sequence

from clay_publish import release as paths
from clay_publish.errors import ReleaseError
from clay_publish.fingerprint import canonical_json
from clay_publish.manifest import RUN_RECORD, RunRecord, derive_run_record, dump_json
from clay_publish.producer.aggregates import write_aggregates
from clay_publish.producer.assemble import publish_coverage
from clay_publish.producer.engine import Run
from clay_publish.producer.gaps import write_gaps
from clay_publish.producer.parts import COVERAGE, read_parts
from clay_publish.producer.reference import publish_reference
from clay_publish.receipts import Receipt
from clay_publish.release import Release

FINISHED = f"{paths.RUN}/finished.json"
"""Of which receipts the release is made."""


def finish(run: Run, receipts: Sequence[Receipt]) -> RunRecord:
    """Write coverage, gaps, reference vectors and aggregates, and the record of the run.

    Raises:
        LockedError: another run has taken this one's place.
        ReleaseError: no chip was embedded, or the files don't hold what the receipts say.
    """
    run.held.check()
    release, plan, spec = run.work.release, run.plan, run.work.spec
    release.store.remove_orphans()  # of workers that died in the middle of a write; nobody else is at work now
    counts: Counter[str] = Counter()
    for receipt in receipts:
        counts.update(receipt.counts)
    write_gaps(release, publish_coverage(release, receipts))
    expected = sum(counts.values())
    if not counts["embedded"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items())) or "no whole chip"
        first = next((receipt.error for receipt in receipts if receipt.error), None) or _first_detail(release, receipts)
        raise ReleaseError(release.store.where, f"has no embedded chip of {expected} ({reasons})", fix=first)
    publish_reference(release, receipts)
    write_aggregates(release, plan, spec.outputs.aggregate, run.gsd)
    record = derive_run_record(release)
    release.store.write(RUN_RECORD, dump_json(record.model_dump(mode="json")))
    release.store.write(FINISHED, dump_json({"receipts": _digest(receipts)}))
    return record


def is_finished(release: Release, receipts: Sequence[Receipt]) -> bool:
    """Whether the release was finished from these receipts."""
    return release.store.exists(FINISHED) and release.json(FINISHED).get("receipts") == _digest(receipts)


def _digest(receipts: Sequence[Receipt]) -> str:
    ordered = sorted(receipts, key=lambda receipt: receipt.unit)
    return hashlib.sha256(canonical_json([receipt.model_dump(mode="json") for receipt in ordered])).hexdigest()


def _first_detail(release: Release, receipts: Sequence[Receipt]) -> str:
    """Why a chip is missing, in the words of the first row that says so."""
    for table in read_parts(release, receipts, COVERAGE):
        told = table["detail"].drop_null()
        if len(told):
            return str(told[0].as_py())
    return ""
