"""Every field an audit event may carry, as JSON Schema: the envelope, and the parts of `data` (audit.md section 4)."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

UUID: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
HEX16: Final = "^[0-9a-f]{32}$"
INSTANT: Final = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$"


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def number(description: str, **more: Any) -> Schema:
    return {"type": "number", "minimum": 0, "description": description, **more}


def count(description: str) -> Schema:
    return {"type": "integer", "minimum": 0, "description": description}


def flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def texts(description: str) -> Schema:
    return {"type": "array", "items": {"type": "string"}, "description": description}


def block(description: str, properties: Schema, *required: str) -> Schema:
    found: Schema = {"type": "object", "description": description, "properties": properties}
    return {**found, "required": sorted(required)} if required else found


ENVELOPE: Final[Schema] = {
    "specversion": {"const": "1.0"},
    "id": text("UUIDv7, made with the event, never used again", pattern=UUID),
    "source": text("`urn:wardmesh:<service>:<instance>`", pattern="^urn:wardmesh:"),
    "time": text("UTC with microseconds", pattern=INSTANT),
    "datacontenttype": {"const": "application/json"},
    "traceparent": text("W3C trace context of the request"),
    "tenant": text("opaque code of the tenant"),
}
ENVELOPE_REQUIRED: Final = ("specversion", "id", "source", "type", "time", "datacontenttype", "dataschema", "tenant")

_PERSON: Final[Schema] = {
    "id": text("stable id; a patient's pseudonym when the actor is a patient"),
    "type": text("practitioner, patient, service, ai_agent, unknown"),
    "role": text("first role"),
    "roles": texts("all roles, when there are several"),
    "org": text("organisation"),
    "client_id": text("OAuth client"),
    "session": text("session id"),
    "jti": text("id of the token"),
    "acr": text("authentication context"),
    "mfa": flag("a second factor was used"),
    "ip": text("address of the caller"),
    "source": text("how an AI agent identified itself"),
}

DATA: Final[Schema] = {
    "phase": {"enum": ["intent", "outcome"], "description": "risky actions have both, reads only the outcome"},
    "action": text("C R U D E search export print login consent privilege audit_status key ..."),
    "outcome": block(
        "what became of it",
        {
            "code": {"enum": ["success", "denied", "error", "withheld", "unterminated"]},
            "http": count("HTTP status, when there was one"),
            "reason": text("from a list of codes"),
        },
        "code",
        "reason",
    ),
    "actor": block(
        "who did it; an AI agent names the person it acts for",
        {**_PERSON, "on_behalf_of": block("the person", _PERSON, "id", "type")},
        "id",
        "type",
    ),
    "event": text("what happened, where interaction and class do not say it: auth.success, security.rate_limit ..."),
    "purpose_of_use": text("HL7 v3 ActReason: TREAT, HPAYMT, HOPERAT, ETREAT, BTG, PATRQT, HRESCH"),
    "break_glass": block(
        "emergency access; the written reason is sealed",
        {
            "used": flag("it was"),
            "id": text("of this emergency access: the same in every record made under it"),
            "reason_code": text("code"),
            "approver": text("who allowed it"),
        },
        "used",
    ),
    "patient": {
        "oneOf": [
            {"type": "null"},
            block(
                "random, the same for one person until it is erased",
                {"pseudonym": text("16 bytes", pattern=HEX16)},
                "pseudonym",
            ),
        ]
    },
    "relationship": text("asserted treatment relationship, or `none`"),
    "resource": block(
        "what was touched; its id is sealed",
        {
            "type": text("FHIR type"),
            "count": count("how many resources"),
            "platform": text("FHIR platform"),
            "version": text("version id"),
            "operation": text("FHIR operation"),
            "entry": count("position of the entry in the batch or transaction that it came in"),
            "fields": texts("elements asked for"),
            "labels": texts("sensitivity labels, `part2`"),
            "masked": count("elements masked by policy"),
            "withheld": count("resources held back by policy"),
        },
    ),
    "disclosure": block(
        "accounting of disclosures; recipient, address and description are sealed",
        {
            "legal_basis": text("code"),
            "request_ref": text("opaque reference of the request"),
            "recurring": flag("one of a series"),
            "ehr": flag("made through an electronic health record (42 CFR 2.25)"),
        },
    ),
    "consent_ref": text("opaque reference of the consent"),
    "policy": block(
        "the decision and the exact rules",
        {
            "decision_id": text("id"),
            "decision": {"enum": ["allow", "deny"]},
            "rule": text("rule that decided"),
            "obligations": texts("masks, caps, compartment"),
            "reason": text("why a call was refused; names the rule, nobody"),
            "version": text("hash of the policy bundle"),
        },
        "decision",
    ),
    "request": block(
        "the request, without its URL",
        {
            "id": text("request id; equal for all events of one request"),
            "method": text("HTTP method"),
            "route": text("template of the route, or tool"),
            "face": text("mcp, rest, fhir"),
            "interaction": text("FHIR interaction"),
            "attempt": count("a repeated read"),
            "bytes": count("size of the answer"),
            "deadline": text("until when it had to be done", pattern=INSTANT),
            "received": text("when the gateway received it", pattern=INSTANT),
            "latency_ms": number("from receipt to record"),
        },
    ),
    "clock": block(
        "the producer's clock",
        {"synced": flag("kept in step"), "offset_ms": {"type": "number", "description": "measured offset"}},
    ),
    "producer": block(
        "dense counter per producer, start and log: a missing number is a lost event",
        {"id": text("instance"), "epoch": text("random per start", pattern=UUID), "seq": count("from 0")},
        "id",
        "epoch",
        "seq",
    ),
    "facts": {
        "type": "object",
        "description": "numbers and codes of this kind of event; of an alert also the title of its rule",
    },
    "corrects": text("id of an earlier event", pattern=UUID),
    "enc": block(
        "what identifies a person, sealed with the subject's key (AES-256-GCM, AAD = event id)",
        {
            "kid": text("which key", pattern=HEX16),
            "alg": {"const": "A256GCM"},
            "n": text("nonce, base64"),
            "ct": text("ciphertext, base64"),
        },
        "kid",
        "alg",
        "n",
        "ct",
    ),
}
DATA_REQUIRED: Final = ("phase", "action", "outcome", "actor", "patient", "clock", "producer")
