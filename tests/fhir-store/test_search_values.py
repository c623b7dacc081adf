"""Search parameter types, their values, prefixes and modifiers."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from store_stage import Fhir, observation, patient

TAGS = "urn:test"


def tagged(resource: Mapping[str, object], mark: str) -> dict[str, object]:
    """So that a search can be limited to one test's resources with `_tag`."""
    return {**resource, "meta": {"tag": [{"system": TAGS, "code": mark}]}}


def found(fhir: Fhir, kind: str, mark: str, query: str) -> set[str]:
    return set(fhir.ids(f"{kind}?_tag={TAGS}|{mark}&{query}"))


def named(fhir: Fhir, mark: str, resources: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Create each; short name → id."""
    return {name: fhir.create(tagged(resource, mark))["id"] for name, resource in resources.items()}


@pytest.mark.requirement("ST-37")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("2024", "day minute year"),  # the open period reaches beyond
        ("2024-05", "day minute"),
        ("2024-05-06", "day minute"),
        ("2024-05-06T10:15:00Z", ""),
        ("2024-05-06T10:15Z", "minute"),
        ("2024-05-06T12:15%2B02:00", "minute"),
        ("ne2024-05", "year open old"),
        ("gt2024-05-06", "year open"),
        ("ge2024-05-06", "day minute year open"),
        ("lt2024-05-06", "year old"),
        ("le2024-05-06", "day minute year old"),
        ("sa2024-05-06", "open"),
        ("eb2024-05-06", "old"),
        ("ap2024-05-06", "day minute year"),
        ("ge2020&date=lt2023", "old"),
        ("2022,2024-05-06", "day minute old"),
    ],
)
def test_dates_are_ranges(fhir: Fhir, mark: str, query: str, expected: str) -> None:
    ids = named(
        fhir,
        mark,
        {
            "day": observation(effectiveDateTime="2024-05-06"),
            "minute": observation(effectiveDateTime="2024-05-06T10:15:30.5Z"),
            "year": observation(effectiveDateTime="2024"),
            "open": observation(effectivePeriod={"start": "2024-11-01"}),
            "old": observation(effectivePeriod={"start": "2022-01-01", "end": "2022-03-01"}),
        },
    )
    matches = found(fhir, "Observation", mark, f"date={query}")
    assert {name for name, identity in ids.items() if identity in matches} == set(expected.split())


@pytest.mark.requirement("ST-37")
def test_of_a_timing_the_outer_limits_count(fhir: Fhir, mark: str) -> None:
    def asked(**timing: object) -> dict[str, object]:
        request = {"resourceType": "ServiceRequest", "status": "active", "intent": "order"}
        return {**request, "subject": {"reference": "Patient/x"}, "occurrenceTiming": timing}

    often = {"frequency": 1, "period": 2, "periodUnit": "d"}
    ids = named(
        fhir,
        mark,
        {
            "events": asked(event=["2024-03-05T10:00:00Z", "2024-02-10"]),
            "bounds": asked(repeat={**often, "boundsPeriod": {"start": "2024-01-31", "end": "2024-03-24"}}),
            "open": asked(repeat={**often, "boundsPeriod": {"start": "2024-12-01"}}),
            "never": asked(repeat=often),
        },
    )
    for query, expected in {
        "2024": "events bounds",
        "2024-02": "",
        "ne2024": "open",
        "ge2024-12": "open",
        "gt2024-03-24": "open",
        "le2024-02-01": "bounds",
        "lt2024-02-01": "bounds",
        "lt2024-01-31": "",
        "sa2024-03-24": "open",
        "eb2024-03-06": "events",
        "eb2024-03-25": "events bounds",
    }.items():
        matches = found(fhir, "ServiceRequest", mark, f"occurrence={query}")
        assert {name for name, identity in ids.items() if identity in matches} == set(expected.split()), query


@pytest.mark.requirement("ST-38")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("name=mull", "umlaut"),
        ("name=MÜLL", "umlaut"),
        ("family=muller", "umlaut"),
        ("given=jose", "umlaut"),
        ("name=jos", "umlaut"),
        ("name:exact=Müller", "umlaut"),
        ("name:exact=Muller", ""),
        ("name:contains=ull", "umlaut"),
        ("name=ull", ""),
        ("name:contains=%25", ""),
        ("address=spring", "umlaut"),
        ("address-city=springfield", "umlaut"),
        ("address-postalcode=0110", "umlaut"),
        ("name=smith,müller", "umlaut plain"),
        ("name=smith&given=ann", "plain"),
        ("name=a\\,b", "comma"),
        ("family:missing=true", "none"),
        ("family:missing=false", "umlaut plain comma"),
    ],
)
def test_strings_match_by_prefix_without_case_and_accents(fhir: Fhir, mark: str, query: str, expected: str) -> None:
    address = {"line": ["1 Road"], "city": "Springfield", "postalCode": "01101"}
    ids = named(
        fhir,
        mark,
        {
            "umlaut": {
                "resourceType": "Patient",
                "name": [{"family": "Müller", "given": ["José"]}],
                "address": [address],
            },
            "plain": {"resourceType": "Patient", "name": [{"family": "Smith", "given": ["Ann"]}]},
            "comma": {"resourceType": "Patient", "name": [{"family": "A,B"}]},
            "none": {"resourceType": "Patient", "active": True},
        },
    )
    matches = found(fhir, "Patient", mark, query)
    assert {name for name, identity in ids.items() if identity in matches} == set(expected.split())


@pytest.mark.requirement("ST-39")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("identifier=urn:a|X1", "a"),
        ("identifier=urn:a|x1", "a"),
        ("identifier=X1", "a bare"),
        ("identifier=|X1", "bare"),
        ("identifier=urn:a|", "a"),
        ("identifier=urn:b|X1", ""),
        ("identifier=urn:a|X1,nothing", "a"),
        ("gender=male", "a"),
        ("gender=http://hl7.org/fhir/administrative-gender|male", "a"),
        ("gender=MALE", ""),
        ("gender:not=male", "bare phone"),
        ("active=true", "bare"),
        ("deceased=true", "a"),
        ("deceased=false", "bare phone"),
        ("phone=555-1", "phone"),
        ("email=a@example.org", "phone"),
        ("telecom=555-1", "phone"),
        ("identifier:missing=true", "phone"),
        ("language:missing=false", "a"),
        ("identifier=a\\|b", ""),
    ],
)
def test_tokens_by_system_and_code(fhir: Fhir, mark: str, query: str, expected: str) -> None:
    telecom = [{"system": "phone", "value": "555-1"}, {"system": "email", "value": "a@example.org"}]
    ids = named(
        fhir,
        mark,
        {
            "a": patient(
                "A",
                identifier=[{"system": "urn:a", "value": "X1"}],
                gender="male",
                deceasedDateTime="2020",
                communication=[{"language": {"text": "only text"}}],
            ),
            "bare": patient("B", identifier=[{"value": "X1"}], active=True, deceasedBoolean=False),
            "phone": patient("C", telecom=telecom),
        },
    )
    matches = found(fhir, "Patient", mark, query)
    assert {name for name, identity in ids.items() if identity in matches} == set(expected.split())


@pytest.mark.requirement("ST-40")
def test_references_by_id_type_url_version_and_identifier(fhir: Fhir, mark: str) -> None:
    subject = {"identifier": {"system": "urn:mrn", "value": mark}}
    ids = named(
        fhir,
        mark,
        {
            "relative": observation(f"Patient/{mark}"),
            "absolute": observation(f"{fhir.base}/Patient/{mark}"),
            "versioned": observation(f"Patient/{mark}/_history/2"),
            "group": observation(f"Group/{mark}"),
            "foreign": observation(f"https://elsewhere.example.org/fhir/Patient/{mark}"),
            "logical": observation() | {"subject": subject},
        },
    )

    def names(query: str) -> set[str]:
        matches = found(fhir, "Observation", mark, query)
        return {name for name, identity in ids.items() if identity in matches}

    here = {"relative", "absolute", "versioned"}
    assert names(f"subject={mark}") == here | {"group"}
    assert names(f"subject=Patient/{mark}") == here
    assert names(f"subject={fhir.base}/Patient/{mark}") == here
    assert names(f"subject:Patient={mark}") == here
    assert names(f"subject:Group={mark}") == {"group"}
    assert names(f"patient={mark}") == here
    assert names(f"patient=Patient/{mark}") == here
    assert names(f"subject=Patient/{mark}/_history/2") == {"versioned"}
    assert names(f"subject=https://elsewhere.example.org/fhir/Patient/{mark}") == {"foreign"}
    assert names(f"subject:identifier=urn:mrn|{mark}") == {"logical"}
    assert names("subject:missing=false") == set(ids)


@pytest.mark.requirement("ST-41")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("5.4", "mg"),
        ("5.40", ""),
        ("5.4|http://unitsofmeasure.org|mg", "mg"),
        ("5.4|http://unitsofmeasure.org|kg", ""),
        ("5.4||mg", "mg"),
        ("5.4||milligram", "mg"),
        ("gt5.4", "mg ten above"),
        ("ge10", "ten above"),
        ("lt10", "mg"),
        ("le10", "mg ten"),
        ("ne10", "mg above"),
        ("1e1", "ten"),
        ("ap10", "ten above"),
        ("eb10", "mg"),
        ("sa10", "above"),
    ],
)
def test_quantities_with_unit_precision_and_prefix(fhir: Fhir, mark: str, query: str, expected: str) -> None:
    unit = {"system": "http://unitsofmeasure.org", "code": "mg", "unit": "milligram"}
    ids = named(
        fhir,
        mark,
        {
            "mg": observation(valueQuantity={"value": 5.41, **unit}),
            "ten": observation(valueQuantity={"value": 10, **unit}),
            "above": observation(valueQuantity={"value": 10.5, "comparator": ">", **unit}),
        },
    )
    matches = found(fhir, "Observation", mark, f"value-quantity={query}")
    assert {name for name, identity in ids.items() if identity in matches} == set(expected.split())


@pytest.mark.requirement("ST-36")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("0.5", "half"),
        ("0.50", "half"),
        ("0.501", ""),
        ("5e-1", "half"),
        ("gt0.5", "most"),
        ("lt0.6", "half"),
        ("ne0.5", "most"),
    ],
)
def test_numbers_have_the_precision_of_their_digits(fhir: Fhir, mark: str, query: str, expected: str) -> None:
    def risk(probability: float) -> dict[str, object]:
        subject = {"reference": f"Patient/{mark}"}
        prediction = [{"probabilityDecimal": probability}]
        return {"resourceType": "RiskAssessment", "status": "final", "subject": subject, "prediction": prediction}

    ids = named(fhir, mark, {"half": risk(0.5), "most": risk(0.9)})
    matches = found(fhir, "RiskAssessment", mark, f"probability={query}")
    assert {name for name, identity in ids.items() if identity in matches} == set(expected.split())


@pytest.mark.requirement("ST-42")
def test_uris_match_exactly_or_along_the_path(fhir: Fhir, mark: str) -> None:
    def value_set(url: str) -> dict[str, object]:
        return {"resourceType": "ValueSet", "status": "draft", "url": url}

    root = f"http://example.org/{mark}"
    ids = named(fhir, mark, {"root": value_set(root), "child": value_set(f"{root}/a"), "like": value_set(f"{root}x")})

    def names(query: str) -> set[str]:
        matches = found(fhir, "ValueSet", mark, query)
        return {name for name, identity in ids.items() if identity in matches}

    assert names(f"url={root}") == {"root"}
    assert names(f"url={root.upper()}") == set()
    assert names(f"url:below={root}") == {"root", "child"}
    assert names(f"url:above={root}/a") == {"root", "child"}


@pytest.mark.requirement("ST-46")
def test_comma_means_or_and_repetition_means_and(fhir: Fhir, mark: str) -> None:
    both = patient("Both", name=[{"family": f"{mark}one"}, {"family": f"{mark}two"}])
    ids = named(fhir, mark, {"one": patient(f"{mark}one"), "two": patient(f"{mark}two"), "both": both})
    assert found(fhir, "Patient", mark, f"family={mark}one,{mark}two") == set(ids.values())
    assert found(fhir, "Patient", mark, f"family={mark}one&family={mark}two") == {ids["both"]}
    escaped = named(fhir, mark, {"e": patient("E", identifier=[{"system": "urn:e", "value": "a,b|c$d\\e"}])})
    assert found(fhir, "Patient", mark, "identifier=urn:e|a\\,b\\|c\\$d\\\\e") == {escaped["e"]}
