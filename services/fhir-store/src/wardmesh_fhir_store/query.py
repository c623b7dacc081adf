"""Query strings as ordered pairs, and the escaping of FHIR search values."""

from __future__ import annotations

from urllib.parse import quote, unquote_plus

from wardmesh_fhir_store.faults import invalid

Pair = tuple[str, str]
MOST_PAIRS = 200


def pairs_of(query: str) -> list[Pair]:
    """Order and repetitions are kept; anything that is not UTF-8 is refused."""
    pairs: list[Pair] = []
    for part in query.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        try:
            pair = unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict")
        except UnicodeDecodeError:
            raise invalid("The query string is not UTF-8.") from None
        if "\x00" in pair[0] or "\x00" in pair[1]:
            raise invalid("The query string holds a NUL character.")
        pairs.append(pair)
    if len(pairs) > MOST_PAIRS:
        raise invalid("The query has too many parameters.")
    return pairs


def query_of(pairs: list[Pair]) -> str:
    """The reverse, for links."""
    return "&".join(f"{quote(name, safe=':_-.$')}={quote(value, safe=':/,-._')}" for name, value in pairs)


def split(value: str, separator: str) -> list[str]:
    """Parts at an unescaped separator; escapes stay for the next level."""
    parts, start, position = [], 0, 0
    while position < len(value):
        if value[position] == "\\":
            position += 2
            continue
        if value[position] == separator:
            parts.append(value[start:position])
            start = position + 1
        position += 1
    parts.append(value[start:])
    return parts


def unescape(value: str) -> str:
    r"""`\,` `\|` `\$` `\\` as themselves."""
    out, position = [], 0
    while position < len(value):
        if value[position] == "\\" and position + 1 < len(value):
            position += 1
        out.append(value[position])
        position += 1
    return "".join(out)
