"""The embedded store alone: validation, load, single writes and searches, at growing numbers of resources."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import httpx

from engines import postgres
from wardmesh_cli.ports import free_port
from wardmesh_fhir_store.definitions import load_definitions
from wardmesh_fhir_store.indexing import Indexer
from wardmesh_fhir_store.jsontext import decode_object
from wardmesh_fhir_store.validation import Validator

SIZES = (1_000, 10_000)
MILLION = 1_000_000
PATIENTS_PER = 10  # resources to one patient
REPEATS = 60
FAMILIES = [f"Family{number}" for number in range(2_000)]
CODES = [f"{number}-{number % 9}" for number in range(500)]
FHIR = {"Content-Type": "application/fhir+json", "Prefer": "return=minimal"}
START_SECONDS = 60.0
PART = 50_000  # resources in one file
LOAD_SECONDS = float(os.environ.get("BENCH_LOAD_SECONDS", "720"))
WRITERS = 8


def patient(number: int, rng: random.Random) -> dict[str, Any]:
    return {
        "resourceType": "Patient",
        "id": f"p{number}",
        "identifier": [{"system": "http://hospital.example.org/mrn", "value": f"MRN{number}"}],
        "name": [{"family": rng.choice(FAMILIES), "given": ["Bench", str(number)]}],
        "gender": rng.choice(("female", "male")),
        "birthDate": str(date(1930, 1, 1) + timedelta(days=rng.randrange(30_000))),
        "address": [{"city": f"City{rng.randrange(300)}", "postalCode": f"{rng.randrange(10_000):05}"}],
    }


def observation(number: int, rng: random.Random) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "id": f"o{number}",
        "status": "final",
        "category": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category",
                                  "code": "vital-signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": rng.choice(CODES)}]},
        "subject": {"reference": f"Patient/p{number // PATIENTS_PER}"},
        "effectiveDateTime": f"{date(2015, 1, 1) + timedelta(days=rng.randrange(4_000))}T08:00:00Z",
        "valueQuantity": {"value": rng.randrange(40, 200), "unit": "/min", "system": "http://unitsofmeasure.org",
                          "code": "/min"},
    }  # fmt: skip


def resources(first: int, last: int) -> Iterator[dict[str, Any]]:
    """Every tenth is a patient, the nine behind it are their observations; the same for the same number."""
    for number in range(first, last):
        rng = random.Random(number)
        if number % PATIENTS_PER == 0:
            yield patient(number // PATIENTS_PER, rng)
        else:
            yield observation(number, rng)


@contextmanager
def store(database_url: str) -> Iterator[tuple[str, dict[str, str]]]:
    port, admin = free_port(), 0
    admin = free_port(taken={port})
    environ = {
        **os.environ,
        "WARDMESH_DATABASE_URL": database_url,
        "WARDMESH_PORT": str(port),
        "WARDMESH_ADMIN_PORT": str(admin),
    }
    command = [sys.executable, "-m", "wardmesh_fhir_store"]
    subprocess.run([*command, "migrate"], env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + START_SECONDS
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{admin}/readyz", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None or time.monotonic() > limit:
                raise RuntimeError("the store did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/fhir", environ
    finally:
        process.terminate()
        process.wait(30)


def load(environ: dict[str, str], first: int, last: int) -> float:
    """Resources a second through `load`, the start of the command included."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.ndjson"
        with path.open("w") as out:
            for one in resources(first, last):
                out.write(json.dumps(one) + "\n")
        begun = time.perf_counter()
        command = [sys.executable, "-m", "wardmesh_fhir_store", "load", str(path)]
        subprocess.run(command, env=environ, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return (last - first) / (time.perf_counter() - begun)


def searches(size: int) -> dict[str, Callable[[random.Random], str]]:
    people = size // PATIENTS_PER

    def someone(rng: random.Random) -> str:
        return f"p{rng.randrange(people)}"

    return {
        "read": lambda r: f"Patient/{someone(r)}",
        "token: identifier": lambda r: f"Patient?identifier=http://hospital.example.org/mrn|MRN{r.randrange(people)}",
        "string: family": lambda r: f"Patient?family={r.choice(FAMILIES)}&_total=none",
        "string, counted": lambda r: f"Patient?family={r.choice(FAMILIES)}",
        "date: a day": lambda r: f"Patient?birthdate={date(1930, 1, 1) + timedelta(days=r.randrange(30_000))}",
        "reference, sorted": lambda r: f"Observation?subject=Patient/{someone(r)}&_sort=-date",
        "quantity and code": lambda r: f"Observation?code={r.choice(CODES)}&value-quantity=gt190&_total=none",
        "code and date": lambda r: f"Observation?code={r.choice(CODES)}&date=ge2020-06&_total=none",
        "composite": lambda r: f"Observation?code-value-quantity={r.choice(CODES)}$gt190&_total=none",
        "chain": lambda r: f"Observation?subject:Patient.identifier=MRN{r.randrange(people)}",
        "_has": lambda r: f"Patient?_has:Observation:subject:code={r.choice(CODES)}&_total=none",
        "_include": lambda r: f"Observation?code={r.choice(CODES)}&_include=Observation:subject&_total=none",
        "_revinclude": lambda r: f"Patient?_id={someone(r)}&_revinclude=Observation:subject",
        "newest of a type": lambda r: "Observation?_sort=-_lastUpdated&_count=20&_total=none",
        "sort by date": lambda r: f"Observation?code={r.choice(CODES)}&_sort=-date&_count=20&_total=none",
        "counted: a code": lambda r: f"Observation?code={r.choice(CODES)}&_summary=count",
        "$everything": lambda r: f"Patient/{someone(r)}/$everything",
    }


def timed(call: Callable[[], httpx.Response]) -> float:
    begun = time.perf_counter()
    answer = call()
    spent = time.perf_counter() - begun
    if answer.status_code >= 400:
        raise RuntimeError(f"answered {answer.status_code}")
    return spent * 1e3


def measure(base: str, size: int) -> dict[str, tuple[float, float]]:
    """Milliseconds, median and 95th of a hundred; one caller at a time."""
    rng = random.Random(size)
    found: dict[str, tuple[float, float]] = {}
    with httpx.Client(base_url=base + "/", timeout=60) as http:
        for name, path in searches(size).items():
            timed(lambda path=path: http.get(path(rng)))
            times = [timed(lambda path=path: http.get(path(rng))) for _ in range(REPEATS)]
            found[name] = spread(times)
        found["page 2"] = spread([second_page(http, rng) for _ in range(REPEATS)])
        times = []
        for _ in range(REPEATS):
            made = observation(rng.randrange(size), rng) | {"id": "gone"}
            times.append(timed(lambda made=made: http.post("Observation", json=made, headers=FHIR)))
        found["create"] = spread(times)
    return found


def spread(times: list[float]) -> tuple[float, float]:
    return statistics.median(times), sorted(times)[int(len(times) * 0.95)]


def second_page(http: httpx.Client, rng: random.Random) -> float:
    first = http.get(f"Observation?code={rng.choice(CODES)}&_count=5&_total=none").json()
    following = next((link["url"] for link in first["link"] if link["relation"] == "next"), "Observation?_count=5")
    return timed(lambda: http.get(following))


def writes(base: str, size: int) -> float:
    """Creates a second, with several callers at once."""

    def caller(number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=base + "/", timeout=60) as http:
            for _ in range(REPEATS):
                made = observation(rng.randrange(size), rng) | {"id": "gone"}
                timed(lambda made=made: http.post("Observation", json=made, headers=FHIR))

    begun = time.perf_counter()
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(caller, range(WRITERS)))
    return WRITERS * REPEATS / (time.perf_counter() - begun)


def validation() -> dict[str, float]:
    """Microseconds of CPU for each step that every write pays."""
    definitions = load_definitions()
    validator, indexer = Validator(definitions), Indexer(definitions, ("http://localhost/fhir",))
    bodies = [json.dumps(one).encode() for one in resources(0, 500)]
    trees = [decode_object(body) for body in bodies]
    for tree in trees:
        validator.check(tree)

    def cost(work: Callable[[], object]) -> float:
        begun = time.process_time()
        for _ in range(4):
            work()
        return (time.process_time() - begun) / 4 / len(bodies) * 1e6

    return {
        "decode": cost(lambda: [decode_object(body) for body in bodies]),
        "validate": cost(lambda: [validator.check(tree) for tree in trees]),
        "index": cost(lambda: [indexer.rows(str(tree["resourceType"]), tree) for tree in trees]),
    }


def show(rows: dict[int, dict[str, tuple[float, float]]], loads: dict[int, float], written: dict[int, float]) -> None:
    sizes = sorted(rows)
    print("\nthe embedded store, one caller at a time, median and 95th percentile in ms")
    print(f"{'':20}" + "".join(f"{size:>22,}" for size in sizes) + "   growth")
    for name in rows[sizes[0]]:
        cells = "".join(f"{rows[size][name][0]:>14.2f} {rows[size][name][1]:>7.2f}" for size in sizes)
        print(f"{name:20}{cells}   x{rows[sizes[-1]][name][0] / rows[sizes[0]][name][0]:.2f}")
    print(f"{'load, a second':20}" + "".join(f"{loads[size]:>22,.0f}" for size in sizes))
    print(f"{f'creates, {WRITERS} callers':20}" + "".join(f"{written[size]:>22,.0f}" for size in sizes) + "   a second")


def show_validation() -> None:
    steps = ", ".join(f"{name} {spent:.0f}" for name, spent in validation().items())
    print(f"\nCPU per resource that the embedded store takes in, µs: {steps}")


def grow(*, million: bool) -> None:
    """The growth curve; a million takes its time and is asked for by name."""
    rows: dict[int, dict[str, tuple[float, float]]] = {}
    loads: dict[int, float] = {}
    written: dict[int, float] = {}
    with postgres("bench") as engine, store(engine.url()) as (base, environ):
        before = 0
        for wanted in (*SIZES, *((MILLION,) if million else ())):
            size, loads_now = fill(environ, before, wanted)
            loads[size] = loads_now
            rows[size] = measure(base, size)
            written[size] = writes(base, size)
            before = size
    show(rows, loads, written)


def fill(environ: dict[str, str], before: int, wanted: int) -> tuple[int, float]:
    """Up to the size, or as far as the time allows: on a machine that does other things the figures say which size."""
    begun, size = time.perf_counter(), before
    rates: list[float] = []
    while size < wanted and time.perf_counter() - begun < LOAD_SECONDS:
        part = min(wanted - size, PART)
        rates.append(load(environ, size, size + part))
        size += part
    return size, statistics.mean(rates)
