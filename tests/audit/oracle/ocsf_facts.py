"""Takes the facts of one OCSF class out of a checkout of the official schema: names, types, requirements, enumerations.

git clone https://github.com/ocsf/ocsf-schema && git -C ocsf-schema checkout c833399f^
python tests/audit/oracle/ocsf_facts.py ocsf-schema application/api_activity > tests/audit/golden/ocsf-1.7.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class Schema:
    """The files of a checkout, put together as the schema says: `extends`, `$include`, the dictionary."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dictionary: Json = self.read("dictionary.json")["attributes"]
        self.files = {
            kind: {self.read(path)["name"]: path for path in self.paths(kind) if "name" in self.read(path)}
            for kind in ("events", "objects")
        }
        self.objects: dict[str, Json] = {}

    def read(self, path: str) -> Json:
        return json.loads((self.root / path).read_text())

    def paths(self, kind: str) -> list[str]:
        return [str(path.relative_to(self.root)) for path in sorted((self.root / kind).rglob("*.json"))]

    def whole(self, kind: str, path: str) -> Json:
        """Attributes and constraints of a class or object with those of what it extends."""
        made = self.read(path)
        found: Json = {"attributes": {}, "constraints": {}}
        parent = made.get("extends")
        if parent in self.files[kind]:
            found = self.whole(kind, self.files[kind][parent])
        given = dict(made.get("attributes", {}))
        for include in given.pop("$include", []):
            for name, each in self.read(include)["attributes"].items():
                # What a profile requires is required of events that say they have the profile; ours have none.
                found["attributes"].setdefault(name, {}).update({**each, "requirement": "optional"})
        for name, each in given.items():
            known = found["attributes"].setdefault(name, {})
            enum = {**known.get("enum", {}), **each.get("enum", {})}
            known.update(each)
            if enum:
                known["enum"] = enum
        found["constraints"] = made.get("constraints", found["constraints"])
        return found

    def facts(self, whole: Json) -> Json:
        attributes: Json = {}
        for name, each in sorted(whole["attributes"].items()):
            known = {**self.dictionary.get(name, {}), **each}
            enum = {**self.dictionary.get(name, {}).get("enum", {}), **each.get("enum", {})}
            fact: Json = {"type": known.get("type", "string_t"), "requirement": known.get("requirement", "optional")}
            if known.get("is_array"):
                fact["is_array"] = True
            if enum:
                fact["enum"] = sorted(enum)
            if fact["type"] in self.files["objects"]:
                fact = {**fact, "type": "object_t", "object": known["type"]}
                self.object(known["type"])
            attributes[name] = fact
        return {"attributes": attributes, **({"constraints": c} if (c := whole["constraints"]) else {})}

    def object(self, name: str) -> None:
        if name not in self.objects:
            self.objects[name] = {}
            self.objects[name] = self.facts(self.whole("objects", self.files["objects"][name]))


def main() -> None:
    schema = Schema(Path(sys.argv[1]))
    path = f"events/{sys.argv[2]}.json"
    made = schema.facts(schema.whole("events", path))
    category = schema.read("categories.json")["attributes"][sys.argv[2].partition("/")[0]]["uid"]
    made["attributes"]["category_uid"]["enum"] = [str(category)]
    made["attributes"]["class_uid"]["enum"] = [str(category * 1000 + schema.read(path)["uid"])]
    made["version"] = schema.read("version.json")["version"]
    print(json.dumps({"class": made, "objects": schema.objects}, sort_keys=True, separators=(",", ":")))


if __name__ == "__main__":
    main()
