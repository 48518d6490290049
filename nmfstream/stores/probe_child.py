"""Run as a program by `nmfstream.stores.probe`: LIBRARY FILE. Imports nothing of this package."""

import ctypes
import sys
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p

MOST_OBJECTS = 1000
SMALL = 1 << 24
DATASET = 5
CHUNKED, COMPACT = 2, 0
DIRECT = {1, 2, 3, 32000, 32001, 32004, 32015}
"""Filters that are decoded outside the library."""

LINK_VISITOR = ctypes.CFUNCTYPE(c_int, c_int64, c_char_p, c_void_p, c_void_p)

SIGNATURES = {
    "H5open": (c_int, []),
    "H5Eset_auto2": (c_int, [c_int64, c_void_p, c_void_p]),
    "H5Fopen": (c_int64, [c_char_p, c_int, c_int64]),
    "H5Ovisit3": (c_int, [c_int64, c_int, c_int, LINK_VISITOR, c_void_p, c_int]),
    "H5Oopen": (c_int64, [c_int64, c_char_p, c_int64]),
    "H5Oclose": (c_int, [c_int64]),
    "H5Iget_type": (c_int, [c_int64]),
    "H5Aiterate2": (c_int, [c_int64, c_int, c_int, POINTER(c_uint64), LINK_VISITOR, c_void_p]),
    "H5Aopen": (c_int64, [c_int64, c_char_p, c_int64]),
    "H5Aclose": (c_int, [c_int64]),
    "H5Aget_type": (c_int64, [c_int64]),
    "H5Aget_space": (c_int64, [c_int64]),
    "H5Aread": (c_int, [c_int64, c_int64, c_void_p]),
    "H5Sget_simple_extent_npoints": (c_int64, [c_int64]),
    "H5Sclose": (c_int, [c_int64]),
    "H5Tget_size": (c_size_t, [c_int64]),
    "H5Tclose": (c_int, [c_int64]),
    "H5Dget_type": (c_int64, [c_int64]),
    "H5Dget_space": (c_int64, [c_int64]),
    "H5Dget_create_plist": (c_int64, [c_int64]),
    "H5Dget_storage_size": (c_uint64, [c_int64]),
    "H5Dget_num_chunks": (c_int, [c_int64, c_int64, POINTER(c_uint64)]),
    "H5Dread": (c_int, [c_int64, c_int64, c_int64, c_int64, c_int64, c_void_p]),
    "H5Pget_layout": (c_int, [c_int64]),
    "H5Pget_nfilters": (c_int, [c_int64]),
    "H5Pget_filter2": (
        c_int,
        [c_int64, ctypes.c_uint, c_void_p, POINTER(c_size_t), c_void_p, c_size_t, c_char_p, c_void_p],
    ),
    "H5Pclose": (c_int, [c_int64]),
}


def load(path: str) -> ctypes.CDLL:
    """The library, its functions typed."""
    library = ctypes.CDLL(path)
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Walk:
    """Opens every object, its attributes and its chunk index."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.h = library
        self.left = MOST_OBJECTS
        self.attribute = LINK_VISITOR(self._attribute)
        self.visitor = LINK_VISITOR(self._object)

    def file(self, path: bytes) -> None:
        """Walk over a whole file."""
        self.h.H5open()
        self.h.H5Eset_auto2(0, None, None)
        top = self.h.H5Fopen(path, 0, 0)
        if top >= 0:
            self.h.H5Ovisit3(top, 0, 0, self.visitor, None, 1)

    def _object(self, group: int, name: bytes, info: object, data: object) -> int:
        self.left -= 1
        node = self.h.H5Oopen(group, name, 0)
        if node >= 0:
            self.h.H5Aiterate2(node, 0, 0, byref(c_uint64(0)), self.attribute, None)
            if self.h.H5Iget_type(node) == DATASET:
                self._dataset(node)
            self.h.H5Oclose(node)
        return int(self.left <= 0)

    def _attribute(self, node: int, name: bytes, info: object, data: object) -> int:
        attribute = self.h.H5Aopen(node, name, 0)
        if attribute >= 0:
            kind, space = self.h.H5Aget_type(attribute), self.h.H5Aget_space(attribute)
            size = self._bytes(kind, space)
            if 0 < size < SMALL:
                self.h.H5Aread(attribute, kind, ctypes.create_string_buffer(size))
            self.h.H5Tclose(kind), self.h.H5Sclose(space), self.h.H5Aclose(attribute)
        return 0

    def _bytes(self, kind: int, space: int) -> int:
        points = self.h.H5Sget_simple_extent_npoints(space) if kind >= 0 and space >= 0 else -1
        return int(points * self.h.H5Tget_size(kind)) if points > 0 else 0

    def _dataset(self, node: int) -> None:
        kind, space, plan = self.h.H5Dget_type(node), self.h.H5Dget_space(node), self.h.H5Dget_create_plist(node)
        self.h.H5Dget_storage_size(node)
        layout = self.h.H5Pget_layout(plan) if plan >= 0 else -1
        if layout == CHUNKED:
            self.h.H5Dget_num_chunks(node, 0, byref(c_uint64(0)))
        size = self._bytes(kind, space)
        if 0 < size < SMALL and (layout == COMPACT or (layout == CHUNKED and self._odd(plan))):
            self.h.H5Dread(node, kind, 0, 0, 0, ctypes.create_string_buffer(size))
        self.h.H5Tclose(kind), self.h.H5Sclose(space), self.h.H5Pclose(plan)

    def _odd(self, plan: int) -> bool:
        """Whether the library itself will decode the chunks."""
        codes = [
            self.h.H5Pget_filter2(plan, i, None, byref(c_size_t(0)), None, 0, None, None)
            for i in range(self.h.H5Pget_nfilters(plan))
        ]
        return not set(codes) <= DIRECT


if __name__ == "__main__":
    Walk(load(sys.argv[1])).file(sys.argv[2].encode("utf-8", "surrogateescape"))
