"""A FHIR platform that answers at once with fixed synthetic resources: the same for the mesh and the bare proxy."""

from __future__ import annotations

import asyncio
import json
import sys


def patient(number: int) -> dict[str, object]:
    """A Patient of about 3.7 KB."""
    return {
        "resourceType": "Patient",
        "id": f"p{number}",
        "meta": {"versionId": "1", "lastUpdated": "2026-01-01T00:00:00.000Z"},
        "text": {
            "status": "generated",
            "div": f"<div xmlns='http://www.w3.org/1999/xhtml'>{'Synthetic. ' * 150}</div>",
        },
        "identifier": [{"system": "http://hospital.example.org/mrn", "value": f"MRN{number:06}"}],
        "name": [{"use": "official", "family": "Example", "given": ["Synthetic", str(number)]}],
        "telecom": [{"system": "phone", "value": "+1-555-0100", "use": "home"}],
        "gender": "female",
        "birthDate": "1970-01-01",
        "address": [{"line": ["1 Example Street"], "city": "Springfield", "state": "IL", "postalCode": "62701"}],
        "extension": [{"url": f"http://example.org/fhir/note-{i}", "valueString": "x" * 100} for i in range(8)],
    }


def observation(number: int) -> dict[str, object]:
    """An Observation of patient p1, as large as a Patient: what differs is how many people an answer is about."""
    kept = {name: patient(number)[name] for name in ("meta", "text", "identifier", "extension")}
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        **kept,
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
        "subject": {"reference": "Patient/p1"},
        "effectiveDateTime": "2026-01-01T00:00:00Z",
        "valueQuantity": {"value": 60 + number, "unit": "beats/minute", "system": "http://unitsofmeasure.org"},
    }


def bundle(resources: list[dict[str, object]]) -> bytes:
    entries = [{"fullUrl": f"urn:x:{n}", "resource": r, "search": {"mode": "match"}} for n, r in enumerate(resources)]
    return json.dumps({"resourceType": "Bundle", "type": "searchset", "total": len(entries), "entry": entries}).encode()


def bodies() -> dict[bytes, bytes]:
    return {
        b"/fhir/Patient/p1": json.dumps(patient(1)).encode(),
        b"/fhir/Patient": bundle([patient(number) for number in range(20)]),
        b"/fhir/Observation": bundle([observation(number) for number in range(20)]),
        b"/fhir/metadata": b'{"resourceType":"CapabilityStatement","status":"active","fhirVersion":"4.0.1"}',
    }


class Upstream(asyncio.Protocol):
    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self._answers = answers
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            target = head.split(b" ", 2)[1].partition(b"?")[0]
            body = self._answers.get(target, b"{}")
            assert isinstance(self._transport, asyncio.WriteTransport)
            self._transport.write(
                b'HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\nETag: W/"1"\r\nContent-Length: %d\r\n\r\n'
                % len(body)
                + body
            )


async def main(port: int) -> None:
    answers = bodies()
    server = await asyncio.get_running_loop().create_server(lambda: Upstream(answers), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
