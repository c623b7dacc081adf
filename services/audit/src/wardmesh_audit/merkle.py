"""The RFC 6962 Merkle tree: hashing, the compact range that is all a writer keeps, and proofs made and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

HASH_BYTES = 32
_LEAF, _NODE = hashlib.sha256(b"\x00"), hashlib.sha256(b"\x01")  # every hash begins as one of these
EMPTY_ROOT = hashlib.sha256(b"").digest()

# A perfect subtree: (level, index), covering the leaves [index << level, (index + 1) << level).
Node = tuple[int, int]


class BadFrontier(Exception):
    """The stored tree state cannot belong to a tree of the stored size."""


def leaf_hash(leaf: bytes) -> bytes:
    digest = _LEAF.copy()  # costs less than a new one
    digest.update(leaf)
    return digest.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The roots of the perfect subtrees of a tree, largest first: at most 64 hashes, all that appending needs."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, frontier: bytes = b"") -> None:
        if size < 0 or len(frontier) != size.bit_count() * HASH_BYTES:
            raise BadFrontier("the frontier does not fit the size")
        self.size = size
        self.hashes = [frontier[i : i + HASH_BYTES] for i in range(0, len(frontier), HASH_BYTES)]

    def append(self, hashed: bytes) -> None:
        """Adds one leaf hash: every trailing one bit of the size means one subtree of that height to merge."""
        hashes = self.hashes
        size = self.size
        while size & 1:
            hashed = hashlib.sha256(b"\x01" + hashes.pop() + hashed).digest()  # node_hash, without the call
            size >>= 1
        hashes.append(hashed)
        self.size += 1

    def extend(self, hashes: Iterable[bytes]) -> None:
        """Adds many, level by level: what stays single at a level belongs to the range, pairs go on to the next."""
        nodes, size = list(hashes), self.size
        self.size += len(nodes)
        single: list[bytes] = []
        while nodes:
            if size & 1:
                nodes.insert(0, self.hashes.pop())
            if len(nodes) & 1:
                single.append(nodes.pop())
            nodes = _parents(nodes)
            size >>= 1
        self.hashes += reversed(single)

    def root(self) -> bytes:
        return fold(self.hashes)

    def frontier(self) -> bytes:
        return b"".join(self.hashes)


def _parents(nodes: Sequence[bytes]) -> list[bytes]:
    """One level up."""
    made: list[bytes] = []
    for left, right in zip(nodes[::2], nodes[1::2], strict=True):
        node = _NODE.copy()
        node.update(left)
        node.update(right)
        made.append(node.digest())
    return made


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees that follow each other, largest first."""
    if not hashes:
        return EMPTY_ROOT
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def cover(start: int, end: int) -> list[Node]:
    """The perfect subtrees that cover the leaves [start, end) as the tree itself splits them."""
    nodes: list[Node] = []
    while start < end:
        level = (end - start).bit_length() - 1
        if start:
            level = min(level, (start & -start).bit_length() - 1)
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def inclusion_ranges(index: int, size: int) -> list[tuple[int, int]]:
    """The leaf ranges whose subtree roots are the inclusion proof of `index`, from leaf to root (RFC 6962 2.1.1)."""
    if not 0 <= index < size:
        raise ValueError("the index is not inside the tree")
    return _path(index, 0, size)


def consistency_ranges(old: int, new: int) -> list[tuple[int, int]]:
    """The leaf ranges whose subtree roots prove that the tree of `old` is a prefix of `new` (RFC 6962 2.1.2)."""
    if not 0 < old <= new:
        raise ValueError("the older size must be positive and not above the newer one")
    return _subproof(old, 0, new, whole=True)


def verify_inclusion(hashed: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 section 2.1.3.2, step by step."""
    if not 0 <= index < size:
        return False
    fn, sn = index, size - 1
    result = hashed
    for part in proof:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            result = node_hash(part, result)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            result = node_hash(result, part)
        fn >>= 1
        sn >>= 1
    return sn == 0 and result == root


def verify_consistency(old: int, new: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """RFC 9162 section 2.1.4.2, step by step, with the two cases that need no proof."""
    if not 0 <= old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    parts = list(proof)
    if old & (old - 1) == 0:
        parts.insert(0, old_root)
    if not parts:
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    first = second = parts[0]
    for part in parts[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            first = node_hash(part, first)
            second = node_hash(part, second)
            while not fn & 1 and fn != 0:
                fn >>= 1
                sn >>= 1
        else:
            second = node_hash(second, part)
        fn >>= 1
        sn >>= 1
    return sn == 0 and first == old_root and second == new_root


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def _path(index: int, start: int, end: int) -> list[tuple[int, int]]:
    if end - start == 1:
        return []
    middle = start + _split(end - start)
    if index < middle:
        return [*_path(index, start, middle), (middle, end)]
    return [*_path(index, middle, end), (start, middle)]


def _subproof(old: int, start: int, end: int, *, whole: bool) -> list[tuple[int, int]]:
    if old == end:
        return [] if whole else [(start, end)]
    middle = start + _split(end - start)
    if old <= middle:
        return [*_subproof(old, start, middle, whole=whole), (middle, end)]
    return [*_subproof(old, middle, end, whole=False), (start, middle)]
