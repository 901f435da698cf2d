"""Functions of tensors as machine code, and the order in which parameters lie in a flat vector.

A function is traced once into torch's operations. The engine (rlkit.engine) runs these as instructions of its own
kernels; TorchInductor writes C++ for them and compiles it, which takes longer and does more kinds of networks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, TypeVarTuple

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call, grad_and_value

from rlkit.engine.layout import Descent, Unsupported
from rlkit.machine import How
from rlkit.options import ConfigError
from rlkit.types import tree_leaves, tree_map

if TYPE_CHECKING:
    from rlkit.engine.program import Program

Args = TypeVarTuple("Args")  # trees of tensors: nested dicts and tuples
Result = TypeVar("Result")  # a tree of tensors
Graph: TypeAlias = Callable[..., Sequence[Tensor]]  # of all leaves, in order


def to_flat(x: Tensor) -> Tensor:
    """A parameter as a vector; rank 4 in channels-last order."""
    return (x.permute(0, 2, 3, 1) if x.dim() == 4 else x).reshape(-1)


def from_flat(vector: Tensor, shape: torch.Size) -> Tensor:
    """The view of `vector` that `to_flat` flattened."""
    if len(shape) != 4:
        return vector.view(shape)
    return vector.view(shape[0], shape[2], shape[3], shape[1]).permute(0, 3, 1, 2)


class Compiled(Generic[*Args, Result]):
    """`function(*args)`, which reads the tensors of `module`, as one graph per set of input shapes.

    The function is traced once into tensor operations (make_fx) with the module's parameters and buffers as inputs:
    a call has no guards to evaluate, which for small networks cost more than the arithmetic. So arguments are nested
    dicts and tuples of tensors, shapes are static, control flow may not depend on values, and whoever changes
    parameters or buffers does it in place, or moves all of them (a worker lays out its policy as its learner did).

    wrt: the function returns (loss, extra), and the call returns (flat gradient over these parameters, which require
    one, extra). descent: the call also makes this step with the gradient, and returns (its norm, extra); by the engine
    alone.

    Raises Unsupported at its first call where the engine is asked for and cannot.
    """

    def __init__(
        self,
        module: nn.Module,
        function: Callable[[*Args], Result],
        how: How,
        wrt: Sequence[nn.Parameter] = (),
        descent: Descent | None = None,
    ) -> None:
        self._call = _Call(module, function)
        self._engine, self._descent = how in ("auto", "engine"), descent
        # by the layout of the arguments: the graph, and an example of the result's structure
        self._graphs: dict[tuple[object, ...], tuple[Graph, Result]] = {}
        self._wrt = list(wrt)
        name_of = {id(p): name for name, p in self._call.named_parameters()}
        assert {id(p) for p in wrt} <= name_of.keys(), "wrt holds a tensor that is no parameter of the module"
        self._names = [name_of[id(p)] for p in wrt]  # the flat gradient has their order, not the module's
        self._look()

    def _look(self) -> None:
        """Find the module's tensors where they lie now; graphs of other places are of no use."""
        self._graphs.clear()
        chosen = set(self._names)
        parameters = dict(self._call.named_parameters())
        self._parameters: list[Tensor] = [p.detach() for p in self._wrt]
        self._constants = {name: p.detach() for name, p in parameters.items() if name not in chosen}
        self._constants |= dict(self._call.named_buffers())
        self._own = [*self._parameters, *self._constants.values()]
        self._first = next(iter(parameters.values()), None)  # one that tells whether they have been moved
        self._place = self._first.data_ptr() if self._first is not None else 0

    def __call__(self, *args: *Args) -> Result:
        """The function's result, or with `wrt` its gradient in the place of the loss."""
        graph, structure, given = self._find(args)
        values = iter(graph(*given) if self._engine else graph(*self._own, *given))
        return tree_map(lambda _: next(values), structure)

    def differentiate(self, *args: *Args) -> Result:
        """(flat gradient, extra), also of what makes steps; none is made. Valid until the next call."""
        if self._descent is None:
            return self(*args)
        graph, structure, given = self._find(args)
        values = iter(graph.differentiate(*given))  # type: ignore[attr-defined]
        return tree_map(lambda _: next(values), structure)

    def each(self, takes: Sequence[Tensor], *args: Any) -> Result:
        """The calls (args[0], take, *args[1:]) for takes of one layout, by the engine: leaves [calls, ...]."""
        graph, structure, given = self._find((args[0], takes[0], *args[1:]))
        number = sum(1 for _ in tree_leaves(args[0]))
        values = iter(graph.each(given, number, takes))  # type: ignore[attr-defined]
        return tree_map(lambda _: next(values), structure)

    def program(self, *args: *Args) -> Program | None:
        """The engine's program for such arguments, if it has been called with some."""
        key = tuple([(x.shape, x.stride(), x.dtype) for x in tree_leaves(args)])
        return self._graphs[key][0] if self._engine and key in self._graphs else None  # type: ignore[return-value]

    def _find(self, args: tuple[*Args]) -> tuple[Graph, Result, list[Tensor]]:
        """The graph for arguments like these, its result's structure, and their leaves."""
        if self._first is not None and self._first.data_ptr() != self._place:
            self._look()
        given = list(tree_leaves(args))
        key = tuple([(x.shape, x.stride(), x.dtype) for x in given])
        found = self._graphs.get(key)
        if found is None:
            found = self._graphs[key] = self._compile([*self._own, *given], args)
        return *found, given

    def _compile(self, leaves: list[Tensor], args: tuple[*Args]) -> tuple[Graph, Result]:
        """The graph for inputs like `leaves`, and an example of the result's structure."""
        from torch.fx.experimental.proxy_tensor import make_fx

        structures: list[Result] = []  # of the result, whenever the function is traced

        def flat_function(*leaves: Tensor) -> list[Tensor]:
            values = iter(leaves)
            parameters = tuple(next(values) for _ in self._parameters)
            constants = {name: next(values) for name in self._constants}
            structures.append(self._pure(parameters, constants, tree_map(lambda _: next(values), args)))
            return list(tree_leaves(structures[-1]))

        traced = make_fx(flat_function)(*leaves)
        if self._engine:
            traced.graph.eliminate_dead_code()
            from rlkit.engine.program import Program  # with numba, which takes a moment to import

            graph: Graph = Program(traced, leaves, len(self._own), self._descent)
        else:
            graph = _inductor(traced, leaves)
        return graph, tree_map(lambda _: None, structures[-1])

    def _pure(self, parameters: tuple[Tensor, ...], constants: dict[str, Tensor], args: tuple[*Args]) -> Any:
        """The call as a function of every tensor that it reads."""

        def of(parameters: tuple[Tensor, ...]) -> Any:
            tensors = dict(zip(self._names, parameters, strict=True)) | constants
            return functional_call(self._call, tensors, args)

        if not parameters:
            return of(parameters)
        gradients, (_, extra) = grad_and_value(of, has_aux=True)(parameters)
        return torch.cat([to_flat(g) for g in gradients]), extra


def _inductor(traced: fx.GraphModule, leaves: Sequence[Tensor]) -> Graph:
    """A traced graph, compiled by TorchInductor."""
    import torch._inductor
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    # torch keeps graphs on disk for later processes where an account of shapes says for which: these alone
    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    inputs: list[Any] = [mode.from_tensor(x, static_shapes=True) for x in leaves]
    try:
        with tracing(TracingContext(mode)):
            graph: Graph = torch._inductor.compile(traced, inputs)
            return graph
    except (torch._inductor.exc.InvalidCxxCompiler, FileNotFoundError) as error:
        raise ConfigError(
            "compile=true needs a C++ compiler (g++ or clang++), and there is none; install one or "
            "type compile=false"
        ) from error


class Either(Generic[*Args, Result]):
    """A function as machine code where that is asked for and works, else as it is.

    compile=engine refuses in one line what the engine cannot; compile=auto goes on with torch.
    """

    def __init__(self, module: nn.Module, function: Callable[[*Args], Result], how: How) -> None:
        self.function, self.how = function, how
        self.compiled = Compiled(module, function, how) if how else None

    def __call__(self, *args: *Args) -> Result:
        if self.compiled is not None:
            try:
                return self.compiled(*args)
            except Unsupported as why:
                refuse(self.how, why)
                self.compiled = None
        return self.function(*args)


def refuse(how: How, why: Exception) -> None:
    """Raise ConfigError where the engine alone was asked for, else warn."""
    if how == "engine":
        raise ConfigError(
            f"compile=engine: it has no kernel for {why}; type compile=auto or compile=true"
        ) from why
    warnings.warn(f"the engine has no kernel for {why}, so torch computes", stacklevel=3)


class _Call(nn.Module):
    """A function that uses `module`, as a module's forward, so that functional_call can substitute its tensors."""

    def __init__(self, module: nn.Module, function: Callable[..., object]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *args: object) -> object:
        return self.function(*args)
