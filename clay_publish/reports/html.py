"""One self-contained page: no script, no request, every text of the release escaped."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby

import jinja2

from clay_publish import __version__
from clay_publish.findings import Severity, ValidationReport
from clay_publish.reports.pictures import bars, maps, reasons_of
from clay_publish.validate.rules import Rule

_CAPTIONS = {
    "norm": "Length of the vectors",
    "loss": "Reconstruction loss",
    "similarity": "Cosine of two chips drawn at random",
}


def html(validation: ValidationReport, rules: Sequence[Rule]) -> str:
    """The report as a page. Its policy lets a browser load nothing and run nothing."""
    measures = validation.measures
    found = sorted(validation.findings, key=lambda f: (-f.severity.rank, f.code))
    style = (files("clay_publish") / "templates" / "report.css").read_text(encoding="utf-8")
    return _template().render(
        validation=validation,
        version=__version__,
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
        verdict=verdict(validation),
        worst=validation.worst(),
        groups=[(code, list(members)) for code, members in groupby(found, key=lambda f: f.code)],
        fixes={rule.code: rule.fix for rule in rules},
        titles={rule.code: rule.title for rule in rules},
        unchecked=[(c, s.partition(": ")[2]) for c, s in validation.checked.items() if s.startswith("not checked")],
        passed=[(c, s) for c, s in validation.checked.items() if s.startswith("passed")],
        measures=measures,
        maps=maps(measures) if measures else [],
        reasons=reasons_of(measures) if measures else [],
        bars=[(bars(n, h), _CAPTIONS[n]) for n, h in measures.distributions.items()] if measures else [],
    )


def verdict(validation: ValidationReport) -> str:
    """One line that says it all."""
    if all(state.startswith("not checked") for state in validation.checked.values()):
        return "Not judged: no rule could look"
    worst = validation.worst()
    if worst is None:
        return "Valid as far as a quick look tells" if validation.quick else "Valid: nothing is wrong"
    counts = [(sum(f.severity == s for f in validation.findings), str(s)) for s in reversed(Severity)]
    told = ", ".join(f"{n} {name}{'s' if n != 1 and name != 'info' else ''}" for n, name in counts if n)
    return f"{'Not valid' if worst is Severity.ERROR else 'Valid, with remarks'}: {told}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = (files("clay_publish") / "templates" / "report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(text)
