"""The tree against RFC 6962's vectors, a naive recomputation, pymerkle and every small pair of sizes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from wardmesh_audit.merkle import (
    EMPTY_ROOT,
    BadFrontier,
    CompactRange,
    consistency_ranges,
    cover,
    fold,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# The eight test leaves of RFC 6962's reference implementation and the roots of their first 1..8.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
LIMIT = 300


def naive_root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return hashlib.sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node_hash(naive_root(hashes[:split]), naive_root(hashes[split:]))


class Forest:
    """Subtree roots of one list of leaves, remembered, so that all pairs stay cheap."""

    def __init__(self, count: int) -> None:
        self.hashes = [leaf_hash(b"leaf %d" % i) for i in range(count)]
        self._known: dict[tuple[int, int], bytes] = {}

    def root(self, start: int, end: int) -> bytes:
        if (start, end) not in self._known:
            self._known[(start, end)] = fold(
                [naive_root(self.hashes[n << lv : (n + 1) << lv]) for lv, n in cover(start, end)]
            )
        return self._known[(start, end)]

    def inclusion(self, index: int, size: int) -> list[bytes]:
        return [self.root(*span) for span in inclusion_ranges(index, size)]

    def consistency(self, old: int, new: int) -> list[bytes]:
        return [self.root(*span) for span in consistency_ranges(old, new)]


@pytest.fixture(scope="module")
def forest() -> Forest:
    return Forest(LIMIT)


def mutations(proof: list[bytes]) -> Iterator[list[bytes]]:
    yield [*proof, leaf_hash(b"added")]
    yield [leaf_hash(b"added"), *proof]
    for i, part in enumerate(proof):
        yield [*proof[:i], bytes([part[0] ^ 1]) + part[1:], *proof[i + 1 :]]
        yield [*proof[:i], *proof[i + 1 :]]
    for i in range(len(proof) - 1):
        yield [*proof[:i], proof[i + 1], proof[i], *proof[i + 2 :]]


@pytest.mark.requirement("AU-401")
def test_roots_equal_the_vectors_of_rfc_6962() -> None:
    tree = CompactRange()
    assert tree.root() == EMPTY_ROOT
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        tree.append(leaf_hash(leaf))
        assert tree.root().hex() == root


@pytest.mark.requirement("AU-401")
def test_every_pair_of_sizes_up_to_300_verifies(forest: Forest) -> None:
    for new in range(1, LIMIT + 1):
        root = forest.root(0, new)
        for old in range(1, new + 1):
            proof = forest.consistency(old, new)
            assert verify_consistency(old, new, proof, forest.root(0, old), root)
            index = old - 1
            path = forest.inclusion(index, new)
            assert verify_inclusion(forest.hashes[index], index, new, path, root)


@pytest.mark.requirement("AU-401")
def test_every_mutated_proof_of_small_trees_is_rejected(forest: Forest) -> None:
    for new in range(1, 34):
        root = forest.root(0, new)
        for old in range(1, new + 1):
            index = old - 1
            path = forest.inclusion(index, new)
            hashed = forest.hashes[index]
            assert not any(verify_inclusion(hashed, index, new, bad, root) for bad in mutations(path))
            assert not verify_inclusion(leaf_hash(b"other"), index, new, path, root)
            assert not any(verify_inclusion(hashed, i, new, path, root) for i in range(new + 1) if i != index)
            proof, old_root = forest.consistency(old, new), forest.root(0, old)
            assert not any(verify_consistency(old, new, bad, old_root, root) for bad in mutations(proof))
            assert not verify_consistency(old, new, proof, leaf_hash(b"other"), root)
            assert not verify_consistency(old, new, proof, old_root, leaf_hash(b"other"))


def one_of_each(proof: list[bytes], place: int) -> Iterator[list[bytes]]:
    """One mutation of every kind, at a place that moves from pair to pair."""
    yield [*proof, leaf_hash(b"added")]
    if proof:
        at = place % len(proof)
        flipped = bytearray(proof[at])
        flipped[place % 32] ^= 1 << place % 8
        yield [*proof[:at], bytes(flipped), *proof[at + 1 :]]
        yield [*proof[:at], *proof[at + 1 :]]
        if len(proof) > 1:
            yield [*proof[1:], proof[0]]


@pytest.mark.requirement("AU-401")
def test_for_every_pair_of_sizes_up_to_300_every_kind_of_mutation_is_rejected(forest: Forest) -> None:
    for new in range(1, LIMIT + 1):
        root = forest.root(0, new)
        for old in range(1, new + 1):
            index, place = old - 1, old * 7 + new
            hashed, old_root = forest.hashes[index], forest.root(0, old)
            path, proof = forest.inclusion(index, new), forest.consistency(old, new)
            assert not any(verify_inclusion(hashed, index, new, bad, root) for bad in one_of_each(path, place))
            assert not any(verify_consistency(old, new, bad, old_root, root) for bad in one_of_each(proof, place))
            other = (index + 1 + place % (new - 1)) % new if new > 1 else 1
            assert not verify_inclusion(hashed, other, new, path, root)
            if old < new:
                assert not verify_consistency(old + 1, new, proof, old_root, root)
                assert not verify_consistency(old, new, proof, root, root)


@pytest.mark.requirement("AU-401")
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_mutated_proof_of_a_larger_tree_verifies(forest: Forest, data: st.DataObject) -> None:
    new = data.draw(st.integers(2, LIMIT))
    old = data.draw(st.integers(1, new - 1))
    proof, old_root, root = forest.consistency(old, new), forest.root(0, old), forest.root(0, new)
    other = data.draw(st.integers(1, LIMIT).filter(lambda n: n not in (old, new)))
    assert not any(verify_consistency(old, new, bad, old_root, root) for bad in mutations(proof))
    assert not verify_consistency(other, new, proof, old_root, root)
    path = forest.inclusion(old, new)
    assert not any(verify_inclusion(forest.hashes[old], old, new, bad, root) for bad in mutations(path))


@pytest.mark.requirement("AU-401")
@given(st.lists(st.binary(max_size=40), max_size=80))
def test_the_compact_range_equals_a_naive_recomputation(leaves: list[bytes]) -> None:
    tree = CompactRange()
    for leaf in leaves:
        tree = CompactRange(tree.size, tree.frontier())  # as a writer does: state only in the row
        tree.append(leaf_hash(leaf))
    assert tree.root() == naive_root([leaf_hash(leaf) for leaf in leaves])


def test_a_frontier_of_another_size_is_refused() -> None:
    with pytest.raises(BadFrontier):
        CompactRange(3, b"\x00" * 32)


@pytest.mark.requirement("AU-402")
def test_roots_equal_pymerkle_for_every_size_up_to_200() -> None:
    oracle = InmemoryTree(algorithm="sha256")
    tree = CompactRange()
    for i in range(200):
        leaf = b"record %d" % i
        oracle.append_entry(leaf)
        tree.append(leaf_hash(leaf))
        assert tree.root() == oracle.get_root()
