"""Vectors as values in numba code: a few lanes that stay in registers across a loop.

The loop vectoriser handles innermost loops alone; a product of small matrices wants many sums in registers over an
outer one. A `Vector` is an LLVM vector; lanes never mix, so its width changes no bits.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils, types
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import models, register_model

from nmfstream.core.kernels.widths import estimates_reciprocals, vector_bytes

intrinsic: Any = numba_intrinsic

VECTOR_BYTES = vector_bytes()


class Vector(types.Type):
    """Type of `VECTOR_BYTES` of one floating type."""

    def __init__(self, element: Any) -> None:
        self.element, self.lanes = element, VECTOR_BYTES * 8 // element.bitwidth
        super().__init__(name=f"Vector({element}, {self.lanes})")


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    """An LLVM vector."""

    def __init__(self, manager: Any, of: Vector) -> None:
        super().__init__(manager, of, ir.VectorType(manager.lookup(of.element).get_value_type(), of.lanes))  # type: ignore[no-untyped-call]


def _splat(builder: Any, scalar: Any, t: Any) -> Any:
    nothing = ir.Constant(t, ir.Undefined)
    first = builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), t.count), [0] * t.count))


def _call(builder: Any, name: str, result: Any, args: list[Any], **flags: Any) -> Any:
    """LLVM's function of that name for the vectors given."""
    t = args[-1].type
    kind = ir.FunctionType(result, [arg.type for arg in args])
    suffix = f"v{t.count}f{32 if isinstance(t.element, ir.FloatType) else 64}"
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}")  # type: ignore[no-untyped-call]
    return builder.call(function, args, **flags)


def _pointer(context: Any, builder: Any, of: Any, array: Any, at: Any, t: Any) -> Any:
    struct = context.make_array(of)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, of, struct, at)  # type: ignore[no-untyped-call]
    return builder.bitcast(item, t.as_pointer())


@intrinsic
def load(typingctx, array, i, j):  # type: ignore[no-untyped-def]
    """Vector at array[i, j:], contiguous there."""
    vector = Vector(array.dtype)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        t = context.get_value_type(vector)
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1:], t)
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return vector(array, types.intp, types.intp), codegen


@intrinsic
def store(typingctx, array, i, j, value):  # type: ignore[no-untyped-def]
    """array[i, j:] = value, contiguous there."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        pointer = _pointer(context, builder, signature.args[0], args[0], args[1:3], args[3].type)
        builder.store(args[3], pointer, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), codegen


@intrinsic
def turn(typingctx, source, i0, i1, i2, i3, a, target, j):  # type: ignore[no-untyped-def]
    """target[a + c, j + r] = source[i_r, a + c] for r and c below four."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        from_, to = signature.args[0], signature.args[6]
        t = ir.VectorType(context.get_value_type(source.dtype), 4)
        align = source.dtype.bitwidth // 8
        rows = [_pointer(context, builder, from_, args[0], (row, args[5]), t) for row in args[1:5]]
        r0, r1, r2, r3 = (builder.load(row, align=align) for row in rows)
        places = ir.VectorType(ir.IntType(32), 4)

        def mixed(a: Any, b: Any, *order: int) -> Any:
            return builder.shuffle_vector(a, b, ir.Constant(places, list(order)))

        low, high = (0, 4, 1, 5), (2, 6, 3, 7)
        pairs = [(mixed(r0, r1, *half), mixed(r2, r3, *half)) for half in (low, high)]
        turned = [mixed(x, y, *half) for x, y in pairs for half in ((0, 1, 4, 5), (2, 3, 6, 7))]
        for c, value in enumerate(turned):
            row = builder.add(args[5], ir.Constant(args[5].type, c))
            builder.store(value, _pointer(context, builder, to, args[6], (row, args[7]), t), align=align)
        return context.get_dummy_value()

    index = types.intp
    return types.void(source, index, index, index, index, index, target, index), codegen


@intrinsic
def fill(typingctx, scalar):  # type: ignore[no-untyped-def]
    """The scalar in every lane."""
    vector = Vector(scalar)

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _splat(builder, args[0], context.get_value_type(vector))

    return vector(scalar), codegen


@intrinsic
def add_product(typingctx, scalar, v, total):  # type: ignore[no-untyped-def]
    """total + scalar · v, rounded once."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        t = args[2].type
        return _call(builder, "fma", t, [_splat(builder, args[0], t), args[1], args[2]])

    return v(v.element, v, v), codegen


@intrinsic
def add_products(typingctx, a, b, total):  # type: ignore[no-untyped-def]
    """total + a · b, rounded once."""
    return a(a, a, a), lambda context, builder, signature, args: _call(builder, "fma", args[2].type, list(args))


@intrinsic
def lanes_sum(typingctx, a):  # type: ignore[no-untyped-def]
    """Sum of all lanes, in pairs."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        t = args[0].type.element
        start = ir.Constant(t, -0.0)
        return _call(builder, "vector.reduce.fadd", t, [start, args[0]], fastmath=("reassoc",))

    return a.element(a), codegen


@intrinsic
def add(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a + b."""
    return a(a, a), lambda context, builder, signature, args: builder.fadd(*args)


@intrinsic
def subtract(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a - b."""
    return a(a, a), lambda context, builder, signature, args: builder.fsub(*args)


@intrinsic
def multiply(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a · b."""
    return a(a, a), lambda context, builder, signature, args: builder.fmul(*args)


@intrinsic
def divide(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a / b."""
    return a(a, a), lambda context, builder, signature, args: builder.fdiv(*args)


@intrinsic
def quotient(typingctx, a, b):  # type: ignore[no-untyped-def]
    """a / b to within two roundings, for b that is floored: a normal number."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        numerator, divisor = args
        estimate = _reciprocal(builder, divisor)
        if estimate is None:
            return builder.fdiv(numerator, divisor)
        t = divisor.type
        first = builder.fmul(numerator, estimate)
        rest = _call(builder, "fma", t, [builder.fneg(divisor), first, numerator])
        return _call(builder, "fma", t, [rest, estimate, first])

    return a(a, a), codegen


def _reciprocal(builder: Any, v: Any) -> Any:
    """1 / v to 14 bits, where a CPU has an instruction for that: a division takes as long as all else of a step."""
    if not (isinstance(v.type.element, ir.FloatType) and estimates_reciprocals()):
        return None
    lanes, number = 16, ir.IntType(32)
    part = ir.VectorType(v.type.element, lanes)
    mask = ir.IntType(lanes)
    kind = ir.FunctionType(part, [part, part, mask])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.rcp14.ps.512")  # type: ignore[no-untyped-call]

    def places(first: int, count: int) -> Any:
        return ir.Constant(ir.VectorType(number, count), list(range(first, first + count)))

    whole = None
    for first in range(0, v.type.count, lanes):
        some = builder.shuffle_vector(v, v, places(first, lanes))
        some = builder.call(function, [some, ir.Constant(part, ir.Undefined), ir.Constant(mask, -1)])
        whole = some if whole is None else builder.shuffle_vector(whole, some, places(0, first + lanes))
    return whole


@intrinsic
def root(typingctx, a):  # type: ignore[no-untyped-def]
    """√a."""
    return a(a), lambda context, builder, signature, args: _call(builder, "sqrt", args[0].type, list(args))


@intrinsic
def at_least(typingctx, a, floor):  # type: ignore[no-untyped-def]
    """max(a, floor); NaN stays."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        low = _splat(builder, args[1], args[0].type)
        return builder.select(builder.fcmp_ordered("<", args[0], low), low, args[0])

    return a(a, a.element), codegen


@intrinsic
def lesser(typingctx, a, b):  # type: ignore[no-untyped-def]
    """min(a, b)."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return a(a, a), codegen


@intrinsic
def lanes_min(typingctx, a):  # type: ignore[no-untyped-def]
    """Least lane of numbers."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return _call(builder, "vector.reduce.fmin", args[0].type.element, list(args), fastmath=("nnan",))

    return a.element(a), codegen


@intrinsic
def unless_zero(typingctx, a, other):  # type: ignore[no-untyped-def]
    """a, `other` where it is zero."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        t = args[0].type
        zero = ir.Constant(t, [ir.Constant(t.element, 0.0)] * t.count)
        return builder.select(builder.fcmp_ordered("==", args[0], zero), _splat(builder, args[1], t), args[0])

    return a(a, a.element), codegen
