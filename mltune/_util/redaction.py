"""Remove passwords and tokens from all text that mltune writes or prints."""

from __future__ import annotations

import os
import re

_MASK = "***"
_SHORTEST = 6  # characters; a shorter value of a variable may be part of any word
_IN_ADDRESS = re.compile(r"(?<=://)[^/\s\"]+@")
_WORD = (
    r"(?:password|passwd|passphrase|pwd|secret|(?P<token>token)|api[-_]?key|access[-_]?key|account[-_]?key"
    r"|private[-_]?key|credentials?)"
)
_NO_NUMBER = r"(?(token)(?![\d.]+(?:e[+-]?\d+)?(?![\w.!-])))"  # a token with a numeric value is a hyperparameter
_VALUE = rf"""(?:(?P<quote>["'])(?:(?!(?P=quote)).)+(?P=quote)|{_NO_NUMBER}[^\s'"`&,;)}}]{{4,}})"""
_IS = r"(?:=\s*|(?-i:(?<=[A-Z])):\s*|:\s*(?=['\"]|\S*\d))"  # before a colon, a lower-case name may be prose
_NAMED = re.compile(rf"(?P<name>{_WORD}['\"]?\s*{_IS}){_VALUE}", re.IGNORECASE)
_OPTION = re.compile(rf"(?P<name>(?<![\w-])--[\w-]{{0,30}}?{_WORD}\s+){_VALUE}", re.IGNORECASE)
_AUTHORIZATION = re.compile(r"(?P<scheme>\b(?:Bearer|Basic|Authorization: token)\s+)[\w.~+/=-]{8,}", re.IGNORECASE)
_SECRET_VARIABLE = re.compile(rf"{_WORD}s?(?:$|_)|_PWD$|_PASS$", re.IGNORECASE)  # not TOKENIZERS_PARALLELISM


def redact(text: str) -> str:
    """Return text without credentials: those in URLs, after names such as ``password=``, and from the environment.

    >>> redact("GET https://me:s3cret@host/x?token=abc123 failed")
    'GET https://host/x?token=*** failed'
    >>> redact("max_tokens=512, pad_token=0")
    'max_tokens=512, pad_token=0'
    """
    for value in _environment_values():
        text = re.sub(rf"\b{value}\b", _MASK, text) if value.isalpha() else text.replace(value, _MASK)
    text = _IN_ADDRESS.sub("", text)
    for pattern in (_NAMED, _OPTION):
        text = pattern.sub(lambda match: f"{match['name']}{match['quote'] or ''}{_MASK}{match['quote'] or ''}", text)
    return _AUTHORIZATION.sub(rf"\g<scheme>{_MASK}", text)


def cause(error: BaseException) -> BaseException | None:
    """Return the error to chain as a cause, or None if it or one of its own causes contains credentials."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        if redact(str(current)) != str(current):
            return None
        seen.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return error


def _environment_values() -> list[str]:
    """Return the values of variables with names such as ``AWS_SECRET_ACCESS_KEY``, longest first."""
    values = {
        value
        for name, value in os.environ.items()
        if (match := _SECRET_VARIABLE.search(name)) and len(value) >= _SHORTEST and not os.path.exists(value)
        if not (match[0].lower().startswith("tokens") and value.isdigit())  # such as LLM_MAX_TOKENS
    }
    return sorted(values, key=len, reverse=True)
