"""From a DTR answer to the package of FG-10: questionnaires, value sets and libraries, nothing of a person."""

from __future__ import annotations

from wardmesh_common.errors import BadUpstream
from wardmesh_fhir_proxy.coverage_items import Options, codes_of, questionnaire
from wardmesh_fhir_proxy.coverage_tree import Tree, child, objects, resources, text

# A package may bring a draft of the answers along, filled in with what the payer knows of the person: not asked for.
PUBLIC = frozenset({"Questionnaire", "ValueSet", "CodeSystem", "Library", "StructureMap", "ActivityDefinition"})
EMPTY: Tree = {"questionnaires": [], "value_sets": {}, "libraries": []}
EMPTY_BUNDLE: Tree = {"resourceType": "Bundle", "type": "collection", "entry": []}


def package_bundles(answer: Tree) -> list[Tree]:
    """The PackageBundles of an answer: DTR 2.0 gives one or several inside of Parameters, 1.x a Bundle itself."""
    if text(answer, "resourceType") == "Bundle":
        return [answer]
    if text(answer, "resourceType") != "Parameters":
        raise BadUpstream("The platform's questionnaire package is neither Parameters nor a Bundle.")
    held = [child(part, "resource") for part in objects(answer, "parameter")]
    return [each for each in held if text(each, "resourceType") == "Bundle"]


def one_bundle(bundles: list[Tree]) -> tuple[Tree, int]:
    """All of them as one Bundle, and how many resources were kept back."""
    if not bundles:
        return EMPTY_BUNDLE, 0
    found = [entry for bundle in bundles for entry in objects(bundle, "entry")]
    kept = [entry for entry in found if text(child(entry, "resource"), "resourceType") in PUBLIC]
    base = {name: value for name, value in bundles[0].items() if name not in ("entry", "total", "link", "signature")}
    return {**base, "entry": kept}, len(found) - len(kept)


def package(bundle: Tree) -> Tree:
    """Raises TooLarge."""
    held = resources(bundle)
    options: Options = {}
    value_sets: Tree = {}
    for each in _of(held, "ValueSet"):
        url = text(each, "url")
        codes = codes_of(each)
        options[url] = codes
        options[f"{url}|{text(each, 'version')}"] = codes
        if url:
            title = text(each, "title") or text(each, "name")
            value_sets[url] = ({"title": title} if title else {}) | {"codes": codes}
    return {
        "questionnaires": [questionnaire(each, options | _contained(each)) for each in _of(held, "Questionnaire")],
        "value_sets": value_sets,
        "libraries": list(dict.fromkeys(name for each in _of(held, "Library") if (name := _name(each)))),
    }


def _of(held: list[Tree], kind: str) -> list[Tree]:
    return [each for each in held if text(each, "resourceType") == kind]


def _contained(form: Tree) -> Options:
    """`#yes-no` of an item is a value set inside of the questionnaire."""
    inside = _of(objects(form, "contained"), "ValueSet")
    return {f"#{text(each, 'id')}": codes_of(each) for each in inside}


def _name(library: Tree) -> str:
    url, version = text(library, "url") or text(library, "name") or text(library, "id"), text(library, "version")
    return f"{url}|{version}" if url and version else url
