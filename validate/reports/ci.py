"""SARIF 2.1.0, which code hosts show beside the files. Source: OASIS SARIF 2.1.0."""

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree as ET

from clay_publish import __version__
from clay_publish.release.findings import Finding, Severity, ValidationReport
from clay_publish.validate.registry import Rule
from clay_publish.validate.reports.grouping import rule_link


def junit(validation: ValidationReport, rules: Sequence[Rule], threshold: Severity = Severity.ERROR) -> str:
    """One test case per rule. Findings below the threshold are listed and do not fail it."""
    suite = ET.Element("testsuite", name="clay-publish validate", hostname="localhost")
    failures = skipped = 0
    for rule in rules:
        state = validation.checked.get(rule.code)
        if state is None:
            continue
        case = ET.SubElement(suite, "testcase", classname=rule.group, name=f"{rule.code} {rule.title}", time="0")
        found = [finding for finding in validation.findings if finding.code == rule.code]
        counting = [finding for finding in found if finding.severity.rank >= threshold.rank]
        if counting:
            failures += 1
            failed = ET.SubElement(case, "failure", type=str(counting[0].severity), message=_line(counting[0]))
            failed.text = "\n".join(map(_line, found))
        elif found:
            ET.SubElement(case, "system-out").text = "\n".join(map(_line, found))
        elif state.startswith("not checked"):
            skipped += 1
            ET.SubElement(case, "skipped", message=state)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    suite.set("skipped", str(skipped))
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _line(finding: Finding) -> str:
    expected = f"; expected {finding.expected}" if finding.expected else ""
    return f"{finding.where}: {finding.found}{expected}. {finding.fix}"


_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(validation: ValidationReport, rules: Sequence[Rule]) -> str:
    """One result a finding, placed at its file; rules that could not look are notifications."""
    checked, foreign = [rule for rule in rules if rule.code in validation.checked], "ANY001" in validation.checked
    places = {rule.code: place for place, rule in enumerate(checked)}
    unchecked = [(code, state) for code, state in validation.checked.items() if state.startswith("not checked")]
    run = {
        "tool": {
            "driver": {
                "name": "clay-publish",
                "version": __version__,
                "rules": [_rule(rule, foreign) for rule in checked],
            },
        },
        "invocations": [
            {
                "executionSuccessful": True,
                "toolExecutionNotifications": [
                    {"level": "note", "message": {"text": state}, "associatedRule": {"id": code}}
                    for code, state in unchecked
                ],
            }
        ],
        "results": [_result(finding, places[finding.code]) for finding in validation.findings],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False) + "\n"


def _rule(rule: Rule, foreign: bool) -> dict[str, Any]:
    return {
        "id": rule.code,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.reason},
        "help": {"text": rule.advice if foreign else rule.fix},
        "helpUri": rule_link(rule.code),
        "defaultConfiguration": {"level": _LEVELS[rule.severity]},
    }


def _result(finding: Finding, place: int) -> dict[str, Any]:
    expected = f"; expected {finding.expected}" if finding.expected else ""
    return {
        "ruleId": finding.code,
        "ruleIndex": place,
        "level": _LEVELS[finding.severity],
        "message": {"text": f"{finding.where}: {finding.found}{expected}. {finding.fix}"},
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": quote(finding.where.split(": ")[0], safe="/:")}}}
        ],
    }
