"""Everything one datastore needs, put together once: words, validator, index, search, links, database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from wardmesh_fhir_store import integrity
from wardmesh_fhir_store.bulk_saving import save_many
from wardmesh_fhir_store.composites import Rows
from wardmesh_fhir_store.conditions import ConditionBuilder
from wardmesh_fhir_store.database import Database
from wardmesh_fhir_store.definitions import Definitions
from wardmesh_fhir_store.elements import Elements
from wardmesh_fhir_store.faults import Fault, invalid, not_found, several_matches
from wardmesh_fhir_store.fhirpathpatch import FhirPathPatch
from wardmesh_fhir_store.indexing import Indexer
from wardmesh_fhir_store.jsontext import Tree
from wardmesh_fhir_store.matching import Matcher
from wardmesh_fhir_store.options import Options
from wardmesh_fhir_store.paging import CursorSealer
from wardmesh_fhir_store.query import Pair, pairs_of
from wardmesh_fhir_store.records import MANY, Change, Saved, save
from wardmesh_fhir_store.searching import SearchReader
from wardmesh_fhir_store.selecting import Found, Selector
from wardmesh_fhir_store.slicing import Slicer
from wardmesh_fhir_store.terminology.expanding import Expander
from wardmesh_fhir_store.terminology.questions import answered, questions_of
from wardmesh_fhir_store.terminology.shelf import Shelf
from wardmesh_fhir_store.validation import Validator


class Store:
    """One datastore; `bases` are its FHIR base URLs without a slash at the end, the first is what links show;
    `told`: committed versions are told to the bus."""

    def __init__(
        self,
        database: Database,
        definitions: Definitions,
        validator: Validator,
        bases: tuple[str, ...],
        datastore: int,
        key: bytes,
        options: Options,
        *,
        told: bool,
    ) -> None:
        self.database = database
        self.definitions = definitions
        self.validator = validator
        self.base = bases[0]
        self.bases = bases
        self.options = options
        self.datastore = datastore
        self._told = told
        self.sealer = CursorSealer(key)
        self.slicer = Slicer(definitions)
        self.fhirpath_patch = FhirPathPatch(Elements(definitions))
        self.indexer = Indexer(definitions, bases)
        builder = ConditionBuilder(definitions, Matcher(definitions, bases), datastore)
        self.conditions = builder
        self.searches = SearchReader(definitions, builder, datastore)
        self.selector = Selector(definitions, datastore)

    def check_writable(self) -> None:
        """ST-72."""
        if self.options.read_only:
            raise Fault(403, "forbidden", "The datastore is in read-only mode.")

    async def save(self, connection: AsyncConnection, changes: Sequence[Change]) -> list[Saved]:
        """Every change of this datastore passes here."""
        if self.options.referential_integrity:
            await integrity.check(connection, self.datastore, changes)
        write = save_many if len(changes) >= MANY else save
        return await write(connection, self.datastore, changes, told=self._told)

    def check_type(self, kind: str) -> str:
        """404 for a type that R4 does not have (ST-9)."""
        if kind not in self.definitions.resource_types:
            raise not_found("There is no such resource type.")
        return kind

    def judge(self, kind: str, tree: Tree) -> Rows:
        """Validate a resource that is to be stored and extract its index rows."""
        if tree.get("resourceType") != kind:
            raise invalid("The resource is of another type than the URL.")
        self.validator.check(tree)
        return self.indexer.rows(kind, tree)

    async def searches_for(self, connection: AsyncConnection, pairs: list[Pair]) -> SearchReader:
        """The reader of searches that knows what code systems and value sets say to this one (ST-45)."""
        questions = questions_of(pairs)
        if not questions:
            return self.searches
        shelf = Shelf(connection, self.definitions, self.bases, self.datastore)
        return self.searches.told(await answered(Expander(self.definitions, shelf), questions))

    async def match(self, connection: AsyncConnection, kind: str, criteria: str) -> list[Found]:
        """At most two resources that meet the criteria of a conditional interaction."""
        pairs = pairs_of(criteria)
        search = (await self.searches_for(connection, pairs)).criteria(kind, pairs)
        return (await self.selector.page(connection, search)).matches

    async def match_one(self, connection: AsyncConnection, kind: str, criteria: str) -> Found | None:
        """None or the one match; several are 412."""
        found = await self.match(connection, kind, criteria)
        if len(found) > 1:
            raise several_matches()
        return found[0] if found else None

    def url(self, *parts: str) -> str:
        return "/".join((self.base, *parts))
