"""C2SP tlog-tiles: which tiles a tree of a given size has, their paths and entry bundles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from wardmesh_audit.merkle import HASH_BYTES, node_hash

HEIGHT = 8
WIDTH = 1 << HEIGHT
HALF = 1 << HEIGHT // 2  # as many nodes are half-way up a full tile, and below each of them


class Tile(Struct, frozen=True):
    """One tile of hashes: level, number and how many of its 256 places are filled."""

    level: int
    number: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        return f"tile/{self.level}/{number_path(self.number)}{_partial(self.width)}"


def number_path(number: int) -> str:
    """Three digits per directory, all but the last marked with x: 1234067 -> x001/x234/067."""
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.append(f"x{number % 1000:03d}")
    return "/".join(reversed(groups))


def entries_path(number: int, width: int = WIDTH) -> str:
    return f"tile/entries/{number_path(number)}{_partial(width)}"


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile of a tree of this size, full ones and the partial one at the right edge of each level."""
    level = 0
    count = size
    while count:
        for number in range(count // WIDTH):
            yield Tile(level, number)
        if count % WIDTH:
            yield Tile(level, count // WIDTH, count % WIDTH)
        level += 1
        count >>= HEIGHT


def full_tiles_between(old: int, new: int) -> Iterator[Tile]:
    """The full tiles that a tree has gained from size `old` to size `new`, lower levels first."""
    level = 0
    while new >> HEIGHT:
        old, new = old >> HEIGHT, new >> HEIGHT
        for number in range(old, new):
            yield Tile(level, number)
        level += 1


def parts(hashes: bytes, first: int, count: int) -> list[bytes]:
    """`count` hashes out of many that stand one behind the other."""
    return [hashes[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(first, first + count)]


def subtree(hashes: bytes, first: int, count: int) -> bytes:
    """The root over `count` of these hashes, a power of two."""
    nodes = parts(hashes, first, count)
    while len(nodes) > 1:
        pairs = iter(nodes)
        nodes = [node_hash(left, right) for left, right in zip(pairs, pairs, strict=True)]
    return nodes[0]


def inner_nodes(data: bytes) -> bytes:
    """Of a full tile the nodes half-way up and its root: with them no proof needs more than two times 15 hashes."""
    middle = b"".join(subtree(data, first, HALF) for first in range(0, WIDTH, HALF))
    return middle + subtree(middle, 0, HALF)


def bundle(leaves: Iterable[bytes]) -> bytes:
    """An entry bundle: each entry behind its length in 16 bits, big-endian."""
    parts: list[bytes] = []
    for leaf in leaves:
        parts.append(len(leaf).to_bytes(2, "big"))
        parts.append(leaf)
    return b"".join(parts)


def _partial(width: int) -> str:
    return "" if width == WIDTH else f".p/{width}"
