"""Keeping secrets out of everything that is printed, logged or written."""

import io
import json
import os
import re
import sys

_HIDDEN = "***"
_NAMED = re.compile(r"SECRET|TOKEN|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)
_PLACES = re.compile(r"(FILE|PATH|DIR|URI|URL|ENDPOINT|MODE|PROFILE|DISABLED|ENABLED)$", re.IGNORECASE)
"""Variables that say where a secret is, or how it is used."""
_SHORTEST = 8
"""Characters; what is shorter is also part of ordinary words."""
_USER = re.compile(r"(?<=://)[^\s/@'\"]+@")
_PARAMETER = re.compile(
    r"([?&][^\s=&]*(?:sig|signature|token|credential|secret|password|key)[^\s=&]*=)[^&\s'\"<>)]+", re.IGNORECASE
)
_SHAPES = re.compile(r"\b(?:(?:AKIA|ASIA)[0-9A-Z]{16}|hf_[A-Za-z0-9]{30,})\b")
"""Keys of AWS, tokens of the Hub."""


def redact(text: str) -> str:
    """Return a text without secrets: values of secret variables, passwords and signatures in addresses, known keys."""
    return _without(text, _secrets())


class _Redacted(io.TextIOWrapper):
    """A standard stream that replaces secrets in all that is written to it."""

    secrets: list[str]

    def write(self, text: str, /) -> int:
        super().write(_without(text, self.secrets))
        return len(text)


def redact_output() -> None:
    """Keep secrets out of standard output and standard error, tracebacks and messages of libraries included."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, _Redacted):
            stream.flush()
            redacted = _Redacted(
                stream.buffer, stream.encoding, stream.errors, line_buffering=stream.line_buffering, write_through=True
            )
            redacted.secrets = _secrets()
            setattr(sys, name, redacted)


def _without(text: str, secrets: list[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, _HIDDEN)
    text = _PARAMETER.sub(rf"\1{_HIDDEN}", _USER.sub(f"{_HIDDEN}@", text))
    return _SHAPES.sub(_HIDDEN, text)


def without_secrets(address: str) -> str:
    """Return an address as it may be published: no credentials, no signature, no fragment."""
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0].partition('#')[0]}"


def _secrets() -> list[str]:
    """Values of the environment that are secret, as they are and as JSON writes them, the longest first."""
    found = set()
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _NAMED.search(name) and not _PLACES.search(name):
            found |= {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return sorted(found, key=len, reverse=True)
