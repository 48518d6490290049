"""Compiled kernels without their compiler: machine code is kept on disk and loaded by LLVM's linker alone.

numba compiles a kernel at its first call on a machine, in a process of its own, which ends before the next begins. A
run says first which kernels it is going to call (`expect`), so that what is `missing` is compiled before its buffers
are there (`make`).
Importing it, and letting it find its own cached code, takes a third of a second under the interpreter's lock and
50 MB; the linker needs a tenth of that. Code is kept beside the sources, or where that folder is read-only in the
user's cache folder, under a name that says for which sources, versions, processor and types of arguments it was made.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

NATIVE: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of ``numba.njit`` for a function that a `Kernel` calls."""

_LOCK = threading.RLock()
_PLAIN = {bool: "bool", int: "int64", float: "float64", np.float32: "float32", np.float64: "float64"}
_NUMBERS: dict[str, Any] = {
    "bool": ctypes.c_bool, "int64": ctypes.c_int64, "float32": ctypes.c_float, "float64": ctypes.c_double
}  # fmt: skip
_SUFFIX = ".machine"
MiB = 1 << 20
_DECLARED = re.compile(r'^declare [^@]*@"?([^"(\s]+)"?\(', re.MULTILINE)


class Kernel:
    """A function of arrays and numbers that numba compiles, called as machine code, without the interpreter's lock.

    Parameters
    ----------
    module, name : str
        Where the function is; the module is imported when it has to be compiled.
    """

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self._entries: dict[tuple[Any, ...], _Entry] = {}

    def __call__(self, *args: Any) -> Any:
        """Call it; compile or load it first for arguments of new types.

        Parameters
        ----------
        *args : ndarray, int, float, bool, or float32 and float64 of numpy

        Returns
        -------
        int, float or None

        Raises
        ------
        MemoryError
        """
        kinds = tuple(map(_kind, args))
        entry = self._entries.get(kinds) or self._entry(kinds)
        return entry(args)

    def _entry(self, kinds: tuple[Any, ...]) -> _Entry:
        with _LOCK:
            if kinds not in self._entries:
                self._entries[kinds] = _Entry(_code(Needed(self.module, self.name, kinds)), kinds)
            return self._entries[kinds]


class Needed(NamedTuple):
    """A kernel for some types of arguments.

    Attributes
    ----------
    module, name : str
    kinds : tuple
        Types of its arguments.
    """

    module: str
    name: str
    kinds: tuple[Any, ...]


_EXPECTED: dict[Needed, None] = {}
_MADE: dict[Needed, _Code] = {}
"""Compiled by `make`: it may be that it could not be kept on disk."""


def expect(module: str, name: str, types: str, **letters: Any) -> None:
    """Say that a kernel is going to be called.

    Parameters
    ----------
    module, name : str
    types : str
        Of its arguments: ``int64`` or another number's, or for a contiguous array a letter of `LETTERS` or `letters`
        and its number of dimensions; a letter alone is a number of that type.
    **letters : dtype
    """
    _EXPECTED[Needed(module, name, argument_kinds(types, **letters))] = None


def argument_kinds(types: str, **letters: Any) -> tuple[Any, ...]:
    """Types of arguments, written as in `expect`."""
    known = {letter: np.dtype(dtype) for letter, dtype in (LETTERS | letters).items()}

    def kind(word: str) -> _Array | str:
        if word[0] in known and word[1:].isdigit():
            return _Array(known[word[0]].str, int(word[1:]), True)
        return known[word].name if word in known else word

    return tuple(map(kind, types.split()))


LETTERS: dict[str, Any] = {"b": "u1", "i": "i4", "l": "i8", "d": "f8"}
"""Types that are the same in every run."""


def missing() -> list[Needed]:
    """What is expected, and neither compiled by this process nor kept on disk."""
    return [needed for needed in _EXPECTED if needed not in _MADE and _kept(needed) is None]


def make() -> None:
    """Compile what is missing, one kernel after the other, and load none; nothing is expected then."""
    with _LOCK:
        for needed in missing():
            _MADE[needed] = _code(needed)
        _EXPECTED.clear()


def compiling_bytes(needed: Needed) -> int:
    """The most that a process that compiles this kernel takes, measured."""
    return LARGEST.get(needed.name, COMPILER)


COMPILER = 204 * MiB
LARGEST = {"newton": 232 * MiB, "newton_rows": 218 * MiB}


class _Array(NamedTuple):
    """Type of an array as an argument."""

    dtype: str
    n_dim: int
    contiguous: bool


def _kind(value: Any) -> _Array | str:
    if isinstance(value, np.ndarray):
        return _Array(value.dtype.str, value.ndim, value.flags.c_contiguous)
    return _PLAIN.get(type(value)) or str(value.dtype.name)


class _Code(NamedTuple):
    """Machine code as it is kept."""

    symbol: str
    returns: str
    needs: list[str]
    machine: bytes


class _Entry:
    """Machine code for some types of arguments, by numba's convention for calls among compiled functions.

    Its first arguments are pointers to the result and to an error; an array is passed as (owner, parent, size,
    itemsize, address, shape, strides).
    """

    def __init__(self, code: _Code, kinds: tuple[Any, ...]) -> None:
        types: list[Any] = [ctypes.c_void_p, ctypes.c_void_p]
        for kind in kinds:
            types += [ctypes.c_int64] * (5 + 2 * kind.n_dim) if isinstance(kind, _Array) else [_NUMBERS[kind]]
        self._call = ctypes.CFUNCTYPE(ctypes.c_int32, *types)(_linked(code))
        self._returns = _NUMBERS.get(code.returns)

    def __call__(self, args: tuple[Any, ...]) -> Any:
        flat: list[Any] = []
        for value in args:
            if isinstance(value, np.ndarray):
                flat += (0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides)
            else:
                flat.append(value)
        result, error = (self._returns or ctypes.c_int64)(), ctypes.c_void_p()
        if self._call(ctypes.addressof(result), ctypes.addressof(error), *flat):
            raise MemoryError
        return None if self._returns is None else result.value


def prepare() -> None:
    """Load what a kernel's first call is going to load, the kernel itself aside."""
    _linker()
    _allocator()


def _code(needed: Needed) -> _Code:
    """Compiled before, from disk, or compiled now and put there."""
    code = _MADE.get(needed) or _kept(needed)
    if code is not None:
        return code
    code = _compiled_elsewhere(*needed) or _compiled(*needed)
    for place in _places():
        with suppress(OSError):
            _keep(place / _file_name(needed), _packed(code))
            break
    return code


def _kept(needed: Needed) -> _Code | None:
    for place in _places():
        with suppress(OSError, ValueError, KeyError, TypeError):
            return _unpacked((place / _file_name(needed)).read_bytes())
    return None


def _file_name(needed: Needed) -> str:
    types = blake2b(repr(needed.kinds).encode(), digest_size=8).hexdigest()
    return f"{needed.module.rpartition('.')[2]}.{needed.name}-{types}-{_circumstances()}{_SUFFIX}"


def _places() -> list[Path]:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return [Path(__file__).parent / "__pycache__", caches / "nmfstream"]


def _keep(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _packed(code: _Code) -> bytes:
    head = json.dumps([code.symbol, code.returns, code.needs]).encode()
    body = len(head).to_bytes(8, "little") + head + code.machine
    return blake2b(body, digest_size=16).digest() + body


def _unpacked(content: bytes) -> _Code:
    """Raises ValueError for what is not whole."""
    checksum, body = content[:16], content[16:]
    if blake2b(body, digest_size=16).digest() != checksum:
        raise ValueError("damaged")
    end = 8 + int.from_bytes(body[:8], "little")
    symbol, returns, needs = json.loads(body[8:end])
    return _Code(symbol, returns, needs, body[end:])


@cache
def _circumstances() -> str:
    """A digest of all that the machine code depends on but the types of arguments."""
    from importlib.metadata import version

    digest = blake2b(digest_size=8)
    facts = [version("numba"), version("llvmlite"), *_processor()]
    facts += sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("NUMBA_"))
    for fact in facts:
        digest.update(fact.encode() + b"\0")
    here = Path(__file__).parent
    for source in [Path(__file__), *sorted(here.glob("*/kernels/*.py"))]:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _processor() -> list[str]:
    """What LLVM chooses instructions by, if possible without LLVM: it takes 40 MB that a compiler may need first."""
    with suppress(OSError):
        first, _, _ = Path("/proc/cpuinfo").read_text().partition("\n\n")
        said = [line for line in first.splitlines() if line.partition(":")[0].strip().lower() in _IDENTITY]
        if said:
            return [platform.machine(), *said]
    llvm = _llvm()
    return [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]


_IDENTITY = {
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags",
    "cpu implementer", "cpu architecture", "cpu variant", "cpu part", "cpu revision", "features", "isa",
}  # fmt: skip


def _llvm() -> Any:
    return import_module("llvmlite.binding")


@cache
def _linker() -> Any:
    llvm = _llvm()
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def _linked(code: _Code) -> int:
    """Address of the code in memory. What it needs is looked for first: the linker ends the process over a gap."""
    llvm, linker = _llvm(), _linker()
    for provide in (_allocator, _whole_runtime):
        if all(map(llvm.address_of_symbol, code.needs)):
            break
        provide()
    if missing := [name for name in code.needs if not llvm.address_of_symbol(name)]:
        raise RuntimeError(f"compiled code needs {', '.join(missing)}, which numba does not have")
    linker.add_object_file(llvm.object_file.ObjectFileRef.from_data(code.machine))
    linker.finalize_object()
    return int(linker.get_function_address(code.symbol))


@cache
def _allocator() -> None:
    """numba's allocator, by itself: a small module of its own."""
    found = importlib.util.find_spec("numba")
    if found is None or found.origin is None:
        return
    folder = Path(found.origin).parent / "core/runtime"
    for path in folder.glob(f"_nrt_python*{importlib.machinery.EXTENSION_SUFFIXES[0]}"):
        spec = importlib.util.spec_from_file_location("numba.core.runtime._nrt_python", path)
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            for name, address in getattr(module, "c_helpers", {}).items():
                _llvm().add_symbol(name if name.startswith("_") else f"NRT_{name}", address)


@cache
def _whole_runtime() -> None:
    from numba.core.registry import cpu_target

    cpu_target.target_context.refresh()


_ELSEWHERE = "import sys; from nmfstream.machine_code import _write_compiled; _write_compiled(*sys.argv[1:])"


def _compiled_elsewhere(module: str, name: str, kinds: tuple[Any, ...]) -> _Code | None:
    """By another process; None where that fails."""
    command = [sys.executable, "-P", "-c", _ELSEWHERE, module, name, json.dumps(kinds)]
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with suppress(OSError, ValueError, subprocess.SubprocessError):
        done = subprocess.run(
            command,
            env=os.environ | paths,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return _unpacked(done.stdout)
    return None


def _write_compiled(module: str, name: str, kinds: str) -> None:
    known = tuple(_Array(*kind) if isinstance(kind, list) else kind for kind in json.loads(kinds))
    sys.stdout.buffer.write(_packed(_compiled(module, name, known)))


def _compiled(module: str, name: str, kinds: tuple[Any, ...]) -> _Code:
    library, result = compiled_library(module, name, kinds)
    needs = sorted({name for name in _DECLARED.findall(library.get_llvm_str()) if not name.startswith("llvm.")})
    return _Code(result.fndesc.llvm_func_name, str(result.signature.return_type), needs, library._get_compiled_object())


def compiled_library(module: str, name: str, kinds: tuple[Any, ...]) -> tuple[Any, Any]:
    """What numba made of a kernel: its library of code, and its account of it."""
    dispatcher = getattr(import_module(module), name)
    types = tuple(map(_numba_type, kinds))
    with _unversioned():
        dispatcher.compile(types)
    result = dispatcher.overloads[types]
    return result.library, result


@contextmanager
def _unversioned() -> Iterator[None]:
    """No loop is compiled twice, to be chosen from by where its arrays lie: the bits of a sum would depend on that."""
    option = "-vectorize-memory-check-threshold="
    _llvm().set_option("nmfstream", f"{option}0")
    try:
        yield
    finally:
        _llvm().set_option("nmfstream", f"{option}128")


def _numba_type(kind: Any) -> Any:
    types: Any = import_module("numba.core.types")
    from numba.np.numpy_support import from_dtype

    if isinstance(kind, _Array):
        layout = "C" if kind.contiguous else "A"
        return types.Array(from_dtype(np.dtype(kind.dtype)), kind.n_dim, layout)
    return getattr(types, "boolean" if kind == "bool" else kind)
