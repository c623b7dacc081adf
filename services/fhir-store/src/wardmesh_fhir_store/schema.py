"""Builds the JSON Schema of a resource type from the extract: the compiled gate of structural validation."""

from __future__ import annotations

from typing import Any

from wardmesh_fhir_store.definitions import Definitions

Schema = dict[str, Any]

# FHIR text holds no control characters but tab, line feed and carriage return.
_TEXT = r"[\t\n\r\u0020-\U0010FFFF]"
# The white space of XML Schema: a no-break space is a letter like any other.
_SOLID = r"[^\u0000-\u0020]"
_YEAR = r"(?:\d\d\d[1-9]|\d\d[1-9]0|\d[1-9]00|[1-9]000)"
_LEAP_YEAR = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_MONTH = r"(?:0[1-9]|1[0-2])"
# The published pattern lets 31 February pass; a date has to be one of the calendar.
_LONG_MONTH = r"(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])"
_SHORT_MONTH = r"(?:0[469]|11)-(?:0[1-9]|[12]\d|30)"
_FEBRUARY = r"02-(?:0[1-9]|1\d|2[0-8])"
_DATE = rf"(?:{_YEAR}-(?:{_LONG_MONTH}|{_SHORT_MONTH}|{_FEBRUARY})|{_LEAP_YEAR}-02-29)"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d+)?"
_ZONE = r"(?:Z|[+\-](?:(?:0\d|1[0-3]):[0-5]\d|14:00))"


def _text(pattern: str) -> Schema:
    return {"type": "string", "pattern": f"^(?:{pattern})$"}


PRIMITIVES: dict[str, Schema] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "minimum": -(1 << 31), "maximum": (1 << 31) - 1},
    "unsignedInt": {"type": "integer", "minimum": 0, "maximum": (1 << 31) - 1},
    "positiveInt": {"type": "integer", "minimum": 1, "maximum": (1 << 31) - 1},
    "decimal": {"type": "number"},
    "string": _text(_TEXT + "+"),
    "markdown": _text(_TEXT + "+"),
    "xhtml": _text(_TEXT + "+"),
    "base64Binary": _text(r"(?:\s*[0-9a-zA-Z+/=]{4}\s*)+"),
    "code": _text(rf"{_SOLID}+(?: {_SOLID}+)*"),
    "id": _text(r"[A-Za-z0-9\-.]{1,64}"),
    "oid": _text(r"urn:oid:[0-2](?:\.(?:0|[1-9]\d*))+"),
    "uuid": _text(r"urn:uuid:[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"),
    "uri": _text(_SOLID + "+"),
    "url": _text(_SOLID + "+"),
    "canonical": _text(_SOLID + "+"),
    "instant": _text(rf"{_DATE}T{_TIME}{_ZONE}"),
    "date": _text(rf"{_YEAR}(?:-{_MONTH})?|{_DATE}"),
    "dateTime": _text(rf"{_YEAR}(?:-{_MONTH})?|{_DATE}(?:T{_TIME}{_ZONE})?"),
    "time": _text(_TIME),
}
NESTED = {"type": "object", "required": ["resourceType"]}  # judged by the schema of its own type
_ELEMENT = {"id": "0..1 string", "extension": "0..* Extension"}
_DOMAIN = {
    "id": "0..1 id",
    "meta": "0..1 Meta",
    "implicitRules": "0..1 uri",
    "language": "0..1 code",
    "text": "0..1 Narrative",
    "contained": "0..* Resource",
    "extension": "0..* Extension",
    "modifierExtension": "0..* Extension",
}
INHERITED: dict[str, dict[str, str]] = {
    "element": _ELEMENT,
    "backbone": _ELEMENT | {"modifierExtension": "0..* Extension"},
    "domain": _DOMAIN,
    "resource": {name: _DOMAIN[name] for name in ("id", "meta", "implicitRules", "language")},
}


class SchemaBuilder:
    """One schema per resource type, holding only the types it reaches."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions

    def schema(self, resource_type: str) -> Schema:
        """A draft 2020-12 schema with everything it needs under `$defs`."""
        wanted, defs = [resource_type], dict[str, Schema]()
        while wanted:
            name = wanted.pop()
            if name in defs:
                continue
            if name in PRIMITIVES:
                defs[name] = PRIMITIVES[name]
            elif name == "Resource":
                defs[name] = NESTED
            elif name == "_element":
                defs[name] = self._object(_ELEMENT, wanted)
            elif name.startswith("!"):
                defs[name] = {"enum": self._definitions.value_sets[name[1:]].codes}
            elif name.startswith("Reference("):
                wanted.append("Reference")
                defs[name] = _aimed(name[10:-1].split(","))
            else:
                elements = dict(self._definitions.types[name])
                defs[name] = self._object(INHERITED[elements.pop("$")] | elements, wanted)
        top = defs[resource_type]
        if resource_type in self._definitions.resource_types:
            top["properties"]["resourceType"] = {"const": resource_type}
        return {"$ref": f"#/$defs/{resource_type}", "$defs": defs}

    def _object(self, elements: dict[str, str], wanted: list[str]) -> Schema:
        properties: dict[str, Schema] = {}
        rules: list[Schema] = []
        for name, word in elements.items():
            cardinality, kinds = word.split(" ", 1)
            least, most = cardinality.removesuffix("S").split("..")
            if name.endswith("[x]"):
                self._choice(name[:-3], kinds.split("|"), least == "1", properties, rules, wanted)
                continue
            primitive = self._property(name, kinds, most, properties, wanted)
            if least != "0":
                rules.append(_required(name, primitive))
        schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False, "minProperties": 1}
        return schema | ({"allOf": rules} if rules else {})

    def _property(self, name: str, kind: str, most: str, properties: dict[str, Schema], wanted: list[str]) -> bool:
        """Adds the property, for primitives also its `_` sibling; tells whether it is primitive."""
        base, _, value_set = kind.removeprefix("@").partition("!")
        if base in self._definitions.resource_types:
            base = "Resource"
        target = f"!{value_set}" if value_set else base
        wanted.append(target)
        primitive = base in PRIMITIVES
        one: Schema = {"$ref": f"#/$defs/{target}"}
        properties[name] = _repeated(one, most, nullable=primitive)
        if primitive:
            wanted.append("_element")
            properties[f"_{name}"] = _repeated({"$ref": "#/$defs/_element"}, most, nullable=True)
        return primitive

    def _choice(
        self,
        name: str,
        kinds: list[str],
        required: bool,
        properties: dict[str, Schema],
        rules: list[Schema],
        wanted: list[str],
    ) -> None:
        """`value[x]`: at most one of its spellings, exactly one when required."""
        present: list[Schema] = []
        for kind in kinds:
            base = kind.split("(")[0]
            spelled = name + base[0].upper() + base[1:]
            if self._property(spelled, kind, "1", properties, wanted):
                present.append({"anyOf": [{"required": [spelled]}, {"required": [f"_{spelled}"]}]})
            else:
                present.append({"required": [spelled]})
        rules.append({"oneOf": present if required else [*present, {"not": {"anyOf": present}}]})


def _required(name: str, primitive: bool) -> Schema:
    rule: Schema = {"required": [name]}
    return {"if": {"not": {"required": [f"_{name}"]}}, "then": rule} if primitive else rule


def _repeated(one: Schema, most: str, *, nullable: bool) -> Schema:
    if most == "1":
        return one
    items: Schema = {"anyOf": [one, {"type": "null"}]} if nullable else one
    limit: Schema = {} if most == "*" else {"maxItems": int(most)}
    return {"type": "array", "items": items, "minItems": 1} | limit


def _aimed(targets: list[str]) -> Schema:
    """A relative literal reference must name one of the allowed types; other forms cannot be judged here."""
    relative = r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?"
    pattern = rf"^(?:(?:{'|'.join(targets)})/.*|(?!{relative}$).*)$"
    return {
        "$ref": "#/$defs/Reference",
        "properties": {"reference": {"pattern": pattern}},
    }
