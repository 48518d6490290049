"""X·Hᵀ and WᵀX of a tall X and few components: X is read from memory once and packed nowhere.

Both hold `TALL` x `WIDE` vectors of sums in registers: rows by components, or vectors of features by components.
Every sum runs over its own numbers in one order, so that a row's bits do not depend on its neighbours.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import cgutils as numba_cgutils
from numba.core import types
from numba.extending import intrinsic as numba_intrinsic

from nmfstream.core.kernels.compiling import kernel, scratch
from nmfstream.core.kernels.widths import TILE_ROWS, WIDE, register_bytes, tall

intrinsic: Any = numba_intrinsic
cgutils: Any = numba_cgutils

TALL = tall()


class _Code:
    """IR of loads and fused products of one vector type."""

    def __init__(self, context: Any, builder: Any, element: Any, lanes: int | None = None) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_value_type(element)
        self.itemsize = element.bitwidth // 8
        self.lanes = lanes or register_bytes() // self.itemsize
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.index = ir.IntType(64)

    def component(self, a: Any, c: int, count: Any) -> Any:
        """a + c, or the last component: what is then done twice comes to the same."""
        wanted, last = self.plus(a, c), self.plus(count, -1)
        return self.builder.select(self.builder.icmp_signed("<", wanted, last), wanted, last)

    def shape(self, of: Any, array: Any, axis: int) -> Any:
        return self.builder.extract_value(self.context.make_array(of)(self.context, self.builder, array).shape, axis)

    def at(self, of: Any, array: Any, *place: Any) -> Any:
        """Pointer to array[place]."""
        struct = self.context.make_array(of)(self.context, self.builder, array)
        return cgutils.get_item_pointer(self.context, self.builder, of, struct, place)

    def plus(self, index: Any, more: int) -> Any:
        return self.builder.add(index, ir.Constant(self.index, more))

    def step(self, pointer: Any, index: Any) -> Any:
        return self.builder.gep(pointer, [index])

    def load(self, pointer: Any) -> Any:
        return self.builder.load(self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.itemsize)

    def widened(self, vector: Any) -> Any:
        """Numbers of this type, from as many of a narrower one."""
        return vector if vector.type == self.vector else self.builder.fpext(vector, self.vector)

    def store(self, pointer: Any, value: Any) -> None:
        self.builder.store(value, self.builder.bitcast(pointer, self.vector.as_pointer()), align=self.itemsize)

    def zeros(self) -> Any:
        return ir.Constant(self.vector, [ir.Constant(self.scalar, 0.0)] * self.lanes)

    def splat(self, scalar: Any) -> Any:
        nothing = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = self.builder.insert_element(nothing, scalar, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(
            first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        )

    def function(self, name: str, result: Any, arguments: list[Any]) -> Any:
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, arguments), name)

    @property
    def suffix(self) -> str:
        return f"v{self.lanes}f{self.itemsize * 8}"

    def fused(self, a: Any, b: Any, total: Any) -> Any:
        call = self.function(f"llvm.fma.{self.suffix}", self.vector, [self.vector] * 3)
        return self.builder.call(call, [a, b, total])

    def mask(self, count: Any) -> Any:
        """The first `count` lanes."""
        numbers = ir.Constant(
            ir.VectorType(self.index, self.lanes), [ir.Constant(self.index, i) for i in range(self.lanes)]
        )
        return self.builder.icmp_signed("<", numbers, self.splat(count))

    def load_some(self, pointer: Any, mask: Any) -> Any:
        """The lanes of a mask; zeros elsewhere, where nothing is read."""
        to = self.vector.as_pointer()
        call = self.function(
            f"llvm.masked.load.{self.suffix}.p0{self.suffix}", self.vector, [to, ir.IntType(32), mask.type, self.vector]
        )
        align = ir.Constant(ir.IntType(32), self.itemsize)
        return self.builder.call(call, [self.builder.bitcast(pointer, to), align, mask, self.zeros()])

    def store_some(self, pointer: Any, value: Any, mask: Any) -> None:
        to = self.vector.as_pointer()
        call = self.function(
            f"llvm.masked.store.{self.suffix}.p0{self.suffix}",
            ir.VoidType(),
            [self.vector, to, ir.IntType(32), mask.type],
        )
        align = ir.Constant(ir.IntType(32), self.itemsize)
        self.builder.call(call, [value, self.builder.bitcast(pointer, to), align, mask])

    def prefetch(self, pointer: Any) -> None:
        """Have a line come into the second-level cache; any address will do."""
        flag, to = ir.IntType(32), ir.IntType(8).as_pointer()
        call = self.function("llvm.prefetch.p0i8", ir.VoidType(), [to, flag, flag, flag])
        read, level, data = (ir.Constant(flag, value) for value in (0, 2, 1))
        self.builder.call(call, [self.builder.bitcast(pointer, to), read, level, data])

    def mixed(self, a: Any, b: Any, places: list[int]) -> Any:
        kind = ir.VectorType(ir.IntType(32), len(places))
        return self.builder.shuffle_vector(a, b, ir.Constant(kind, places))

    def four_sums(self, vectors: list[Any]) -> Any:
        """Sums of the lanes of four vectors, as a vector of four."""
        n, add = self.lanes, self.builder.fadd
        even = [i + side for i in range(0, n, 2) for side in (0, n)]
        odd = [i + 1 for i in even]
        first, second = (add(self.mixed(a, b, even), self.mixed(a, b, odd)) for a, b in (vectors[:2], vectors[2:]))
        low = [i + side + j for i in range(0, n, 4) for side in (0, n) for j in (0, 1)]
        total = add(self.mixed(first, second, low), self.mixed(first, second, [i + 2 for i in low]))
        while n > WIDE:
            n //= 2
            total = add(self.mixed(total, total, list(range(n))), self.mixed(total, total, list(range(n, 2 * n))))
        return total

    def sums(self, count: int, start: Any = None) -> list[Any]:
        """Places for sums that end in registers."""
        places = [cgutils.alloca_once(self.builder, self.vector) for _ in range(count)]
        for place, value in zip(places, start or [self.zeros()] * count, strict=True):
            self.builder.store(value, place)
        return places

    def add(self, place: Any, a: Any, b: Any) -> None:
        self.builder.store(self.fused(a, b, self.builder.load(place)), place)


def _dots(rows: int) -> Any:
    @intrinsic
    def dots(typingctx, X, i, H, a, out):  # type: ignore[no-untyped-def]
        """out[r, c] = X[i + r] · H[a + c] for `rows` rows and `WIDE` components."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            tX, _, tH, _, tout = signature.args
            code, zero = _Code(context, builder, H.dtype), ir.Constant(ir.IntType(64), 0)
            stored = _Code(context, builder, X.dtype, code.lanes)
            m, k = code.shape(tX, args[0], 1), code.shape(tH, args[2], 0)
            x = [code.at(tX, args[0], code.plus(args[1], r), zero) for r in range(rows)]
            h = [code.at(tH, args[2], code.component(args[3], c, k), zero) for c in range(WIDE)]
            sums, lanes = code.sums(rows * WIDE), ir.Constant(code.index, code.lanes)

            def add(at: Any, load: Any) -> None:
                xs = [code.widened(load(stored, code.step(pointer, at))) for pointer in x]
                for c in range(WIDE):
                    hc = load(code, code.step(h[c], at))
                    for r in range(rows):
                        code.add(sums[r * WIDE + c], xs[r], hc)

            with cgutils.for_range(builder, builder.sdiv(m, lanes)) as loop:
                add(builder.mul(loop.index, lanes), _Code.load)
            rest = builder.srem(m, lanes)
            with builder.if_then(builder.icmp_signed(">", rest, zero)):
                mask = code.mask(rest)
                add(builder.sub(m, rest), lambda of, pointer: of.load_some(pointer, mask))
            for r in range(rows):
                total = code.four_sums([builder.load(sums[r * WIDE + c]) for c in range(WIDE)])
                place = code.at(tout, args[4], ir.Constant(code.index, r), zero)
                builder.store(total, builder.bitcast(place, total.type.as_pointer()), align=code.itemsize)
            return context.get_dummy_value()

        return types.void(X, types.intp, H, types.intp, out), codegen

    return dots


def _outer(vectors: int, *, some: bool = False, ahead: bool = False) -> Any:
    @intrinsic
    def outer(typingctx, W, X, i, stop, a, j, B):  # type: ignore[no-untyped-def]
        """B[a + c, j:] += Σᵢ W[i, a + c] X[i, j:], rows i:stop, for `WIDE` components and some vectors of features."""

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            tW, tX, _, _, _, _, tB = signature.args
            code = _Code(context, builder, X.dtype)
            W_, X_, i_, stop_, a_, j_, B_ = args
            m, k = code.shape(tX, X_, 1), code.shape(tB, B_, 0)
            components = [code.component(a_, c, k) for c in range(WIDE)]
            mask = code.mask(builder.sub(m, j_)) if some else None
            load: Any = (lambda pointer: code.load_some(pointer, mask)) if some else code.load
            at = [code.plus(j_, v * code.lanes) for v in range(vectors)]
            places = [code.at(tB, B_, a, j) for a in components for j in at]
            sums = code.sums(len(places), [load(place) for place in places])
            rows = builder.sub(stop_, i_)
            tile = builder.mul(builder.mul(rows, m), ir.Constant(code.index, code.itemsize))
            with cgutils.for_range(builder, rows) as loop:
                row = builder.add(i_, loop.index)
                xs = [load(code.at(tX, X_, row, j)) for j in at]
                for j in at if ahead else ():
                    code.prefetch(cgutils.pointer_add(builder, code.at(tX, X_, row, j), tile))
                for c, a in enumerate(components):
                    w = code.splat(builder.load(code.at(tW, W_, row, a)))
                    for v in range(vectors):
                        code.add(sums[c * vectors + v], w, xs[v])
            for place, total in zip(places, sums, strict=True):
                value = builder.load(total)
                code.store_some(place, value, mask) if some else code.store(place, value)
            return context.get_dummy_value()

        return types.void(W, X, types.intp, types.intp, types.intp, types.intp, B), codegen

    return outer


_many_dots, _one_dots = _dots(TALL), _dots(1)
_first_strip, _strip, _vector, _rest = _outer(TALL, ahead=True), _outer(TALL), _outer(1), _outer(1, some=True)


@kernel
def rows_times(X, H, C):  # type: ignore[no-untyped-def]
    """C = X·Hᵀ, summed in H's type.

    Parameters
    ----------
    X : ndarray of shape (n_rows, n_features), C-contiguous
        Of H's type or a narrower one.
    H : ndarray of shape (n_components, n_features), C-contiguous
    C : ndarray of shape (n_rows, n_components), of H's type
    """
    n, k = X.shape[0], H.shape[0]
    out = scratch((TALL, WIDE), H.dtype)
    whole = n // TALL * TALL
    for i in range(0, whole, TALL):
        for a in range(0, k, WIDE):
            _many_dots(X, i, H, a, out)
            for r in range(TALL):
                for c in range(min(WIDE, k - a)):
                    C[i + r, a + c] = out[r, c]
    for i in range(whole, n):
        for a in range(0, k, WIDE):
            _one_dots(X, i, H, a, out)
            for c in range(min(WIDE, k - a)):
                C[i, a + c] = out[0, c]


@kernel
def add_outer(W, X, lanes, B):  # type: ignore[no-untyped-def]
    """B += WᵀX.

    Parameters
    ----------
    W : ndarray of shape (n_rows, n_components), C-contiguous
    X : ndarray of shape (n_rows, n_features), C-contiguous
    lanes : int
        Numbers in a register.
    B : ndarray of shape (n_components, n_features), C-contiguous
    """
    n, m = X.shape
    height = TILE_ROWS
    for i in range(0, n, height):
        stop = min(i + height, n)
        j = 0
        while j + TALL * lanes <= m:
            _first_strip(W, X, i, stop, 0, j, B)
            for a in range(WIDE, B.shape[0], WIDE):
                _strip(W, X, i, stop, a, j, B)
            j += TALL * lanes
        while j + lanes <= m:
            for a in range(0, B.shape[0], WIDE):
                _vector(W, X, i, stop, a, j, B)
            j += lanes
        if j < m:
            for a in range(0, B.shape[0], WIDE):
                _rest(W, X, i, stop, a, j, B)
