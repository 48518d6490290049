"""How kernels are compiled: for calls as machine code alone (see `nmfstream.machine_code`).

Sums may be reordered, once and for all: what LLVM makes of a loop must not depend on where its arrays lie. It would
if a loop was compiled twice, as vectors and, in case its arrays overlap, number by number, with a look at their
addresses at run time: arrays that happen to be close would then be summed in another order. No such look is taken
(`machine_code._unversioned`), so that only loops over arrays that are known to be apart become vectors: arguments of
a kernel never overlap, and scratch is `alone`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as numba_cgutils
from numba.core import compiler
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic as numba_intrinsic

from nmfstream.machine_code import NATIVE

_njit: Any = numba.njit
_intrinsic: Any = numba_intrinsic
_cgutils: Any = numba_cgutils
_borrowed: Any = impl_ret_borrowed
_Compiler: Any = compiler.Compiler
FAST = {"reassoc", "contract", "nsz", "arcp"}
"""What keeps NaN and infinity right; sums keep one fixed order on one CPU."""


class Apart(_Compiler):  # type: ignore[misc]
    """The compiler of functions whose arguments never overlap."""

    def define_pipelines(self) -> Any:
        """As numba's, with arguments marked."""
        self.state.flags.noalias = True
        return super().define_pipelines()


def kernel(function: Callable[..., Any]) -> Any:
    """What `nmfstream.machine_code.Kernel` calls; what it writes to, no other of its arguments shows."""
    return _njit(fastmath=FAST, error_model="numpy", pipeline_class=Apart, **NATIVE)(function)


def inner(function: Callable[..., Any]) -> Any:
    """A piece of a kernel of the same file, inlined into it."""
    return _njit(inline="always", fastmath=FAST, error_model="numpy")(function)


@_intrinsic
def alone(typingctx, array):  # type: ignore[no-untyped-def]
    """The array, which has just been made: from now on nothing else leads to its memory."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        memory = ir.IntType(8).as_pointer()
        pointer = builder.call(_unknown(builder.module, memory), [builder.bitcast(struct.data, memory)])
        struct.data = builder.bitcast(pointer, struct.data.type)
        return _borrowed(context, builder, signature.return_type, struct._getvalue())

    return array(array), codegen


@inner
def scratch(shape, dtype=np.float64):  # type: ignore[no-untyped-def]
    """Zeros to work with."""
    return alone(np.zeros(shape, dtype))


def _unknown(module: Any, memory: Any) -> Any:
    """A function that returns its argument, as LLVM does not know: to it the memory is new, like malloc's."""
    function = _cgutils.get_or_insert_function(module, ir.FunctionType(memory, [memory]), "nmfstream.alone")
    if not function.blocks:
        function.linkage = "internal"
        function.attributes.add("noinline")
        function.return_value.add_attribute("noalias")
        builder = ir.IRBuilder(function.append_basic_block())
        kind = ir.FunctionType(memory, [memory])
        builder.ret(builder.asm(kind, "", "=r,0,~{memory}", [function.args[0]], side_effect=True))
    return function
