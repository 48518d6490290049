"""A file system in memory that journals what it is asked, so that a loss of power can be played at any moment."""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from nmfstream.storage.disk import Entry

ROOT = 1


def fault(code: int, path: str = "") -> OSError:
    return OSError(code, os.strerror(code), path)


@dataclass
class Node:
    folder: bool
    data: bytearray = field(default_factory=bytearray)
    names: dict[str, int] = field(default_factory=dict)


Nodes: TypeAlias = "dict[int, Node]"


class Op(NamedTuple):
    """One change of one node (of two folders for a rename); all changes are kept in the order they were made."""

    kind: str
    nodes: tuple[int, ...]
    args: tuple[Any, ...]


class MemoryDisk:
    """A `Disk` in memory whose `journal` holds every change and every sync."""

    def __init__(self, base: Nodes | None = None) -> None:
        self.base: Nodes = base or {ROOT: Node(folder=True)}
        self.nodes = copied(self.base)
        self.journal: list[Op] = []
        self.time = 0.0
        self._files: dict[int, int] = {}
        self._next_fd = 100

    # paths

    def _walk(self, parts: list[str], path: str) -> int:
        at = ROOT
        for part in parts:
            node = self.nodes[at]
            if not node.folder:
                raise fault(errno.ENOTDIR, path)
            if part not in node.names:
                raise fault(errno.ENOENT, path)
            at = node.names[part]
        return at

    def _find(self, path: str) -> int:
        return self._walk([p for p in path.split("/") if p], path)

    def _parent(self, path: str) -> tuple[int, str]:
        parts = [p for p in path.split("/") if p]
        parent = self._walk(parts[:-1], path)
        if not self.nodes[parent].folder:
            raise fault(errno.ENOTDIR, path)
        return parent, parts[-1]

    # changes, journalled

    def _do(self, kind: str, nodes: tuple[int, ...], *args: Any) -> None:
        self.journal.append(Op(kind, nodes, args))
        apply(self.nodes, kind, nodes, args)

    def _new(self, folder: bool) -> int:
        number = max(self.nodes) + 1
        self.nodes[number] = Node(folder)
        return number

    def open(self, path: str, flags: int, mode: int = 0o666) -> int:
        parent, name = self._parent(path)
        names = self.nodes[parent].names
        if flags & os.O_CREAT and name in names and flags & os.O_EXCL:
            raise fault(errno.EEXIST, path)
        if name not in names:
            if not flags & os.O_CREAT:
                raise fault(errno.ENOENT, path)
            self._do("set", (parent,), name, self._new(folder=False))
        if flags & os.O_DIRECTORY and not self.nodes[names[name]].folder:
            raise fault(errno.ENOTDIR, path)
        self._next_fd += 1
        self._files[self._next_fd] = names[name]
        return self._next_fd

    def _node(self, fd: int) -> int:
        if fd not in self._files:
            raise fault(errno.EBADF)
        return self._files[fd]

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        self._do("write", (self._node(fd),), offset, bytes(data))
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self._do("cut", (self._node(fd),), size)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return bytes(self.nodes[self._node(fd)].data[offset : offset + size])

    def size(self, fd: int) -> int:
        return len(self.nodes[self._node(fd)].data)

    def fsync(self, fd: int) -> None:
        self.journal.append(Op("sync", (self._node(fd),), ()))

    def close(self, fd: int) -> None:
        self._node(fd)
        del self._files[fd]

    def stat(self, path: str) -> Entry:
        number = self._find(path)
        node = self.nodes[number]
        return Entry(node.folder, len(node.data), (0, number))

    def listdir(self, path: str) -> list[str]:
        node = self.nodes[self._find(path)]
        if not node.folder:
            raise fault(errno.ENOTDIR, path)
        return list(node.names)

    def link(self, source: str, target: str) -> None:
        number = self._find(source)
        parent, name = self._parent(target)
        if name in self.nodes[parent].names:
            raise fault(errno.EEXIST, target)
        self._do("set", (parent,), name, number)

    def unlink(self, path: str) -> None:
        number = self._find(path)
        if self.nodes[number].folder:
            raise fault(errno.EISDIR, path)
        parent, name = self._parent(path)
        self._do("del", (parent,), name)

    def mkdir(self, path: str) -> None:
        parent, name = self._parent(path)
        if name in self.nodes[parent].names:
            raise fault(errno.EEXIST, path)
        self._do("set", (parent,), name, self._new(folder=True))

    def rmdir(self, path: str) -> None:
        number = self._find(path)
        if not self.nodes[number].folder:
            raise fault(errno.ENOTDIR, path)
        if self.nodes[number].names:
            raise fault(errno.ENOTEMPTY, path)
        parent, name = self._parent(path)
        self._do("del", (parent,), name)

    def rename(self, source: str, target: str) -> None:
        number = self._find(source)
        (a, old), (b, new) = self._parent(source), self._parent(target)
        there = self.nodes[b].names.get(new)
        if there is not None and self.nodes[there].folder and self.nodes[there].names:
            raise fault(errno.ENOTEMPTY, target)
        self._do("move", (a, b), old, new, number)

    def rename_new(self, source: str, target: str) -> None:
        number = self._find(source)
        (a, old), (b, new) = self._parent(source), self._parent(target)
        if new in self.nodes[b].names:
            raise fault(errno.EEXIST, target)
        self._do("move", (a, b), old, new, number)

    def exchange(self, one: str, other: str) -> None:
        first, second = self._find(one), self._find(other)
        (a, old), (b, new) = self._parent(one), self._parent(other)
        self._do("swap", (a, b), old, new, first, second)

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds

    # loss of power

    def after_power_loss(self, at: int, rng: random.Random) -> MemoryDisk:
        """The disk as it may be found when power fails after `at` entries of the journal.

        What was synced by then is there. Of the rest each change is there, or not, or (data) in part.
        """
        last_sync = {op.nodes[0]: i for i, op in enumerate(self.journal[:at]) if op.kind == "sync"}
        found = copied(self.base)
        found.update({i: Node(n.folder) for i, n in self.nodes.items() if i not in found})
        keep = rng.random()
        for i, op in enumerate(self.journal[:at]):
            if op.kind != "sync":
                safe = any(last_sync.get(n, -1) > i for n in op.nodes)
                survive(found, op, safe, keep, rng)
        return MemoryDisk(found)


def copied(nodes: Nodes) -> Nodes:
    return {i: Node(n.folder, bytearray(n.data), dict(n.names)) for i, n in nodes.items()}


def apply(nodes: Nodes, kind: str, on: tuple[int, ...], args: tuple[Any, ...]) -> None:
    CHANGES[kind](nodes, on, *args)


def _set(nodes: Nodes, on: tuple[int, ...], name: str, number: int) -> None:
    nodes[on[0]].names[name] = number


def _del(nodes: Nodes, on: tuple[int, ...], name: str) -> None:
    nodes[on[0]].names.pop(name, None)


def _move(nodes: Nodes, on: tuple[int, ...], old: str, new: str, number: int) -> None:
    nodes[on[0]].names.pop(old, None)
    nodes[on[1]].names[new] = number


def _swap(nodes: Nodes, on: tuple[int, ...], old: str, new: str, first: int, second: int) -> None:
    nodes[on[0]].names[old] = second
    nodes[on[1]].names[new] = first


def _write(nodes: Nodes, on: tuple[int, ...], offset: int, data: bytes) -> None:
    content = nodes[on[0]].data
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _cut(nodes: Nodes, on: tuple[int, ...], size: int) -> None:
    content = nodes[on[0]].data
    del content[size:]
    content.extend(bytes(size - len(content)))


CHANGES = {"set": _set, "del": _del, "move": _move, "swap": _swap, "write": _write, "cut": _cut}


def survive(nodes: Nodes, op: Op, safe: bool, keep: float, rng: random.Random) -> None:
    """Apply a change, or not, or a part of it."""
    if safe:
        apply(nodes, op.kind, op.nodes, op.args)
        return
    luck = rng.random()
    if luck >= keep:
        return
    args = op.args
    if op.kind == "write" and luck < keep / 3:
        offset, data = op.args
        a, b = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        args = (offset + a, data[a:b])
    apply(nodes, op.kind, op.nodes, args)
