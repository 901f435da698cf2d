"""C functions of graphs, made by emx-onnx-cgen: static, without memory of their own, constants held once.

    static void greedy_graph(const float i0[1][8], const bool i1[1], ..., int64_t o0[1], ...);

What the generator writes is taken apart by its layout, constants and functions, the last of which is the graph, and put
together again with names that do not meet; what would need a library or a heap is refused.
"""

from __future__ import annotations

import importlib.metadata
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from rlkit.options import ConfigError

if TYPE_CHECKING:
    from onnx import ModelProto

GENERATOR = "emx-onnx-cgen"
INCLUDES = {"stdint.h", "stdbool.h", "math.h", "float.h", "limits.h", "stddef.h", "string.h"}
HEAD = """\
#define idx_t int32_t
#define EMX_UNUSED
#define EMX_NODE_FN static inline
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic" /* a float (*)[8] is given where a const float (*)[8] is read */
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
"""
TAIL = """\
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
"""
INSTEAD = "rlkit export without --format writes the graph, which ONNX Runtime's C API and rlkit's runtime run"
_CONSTANT = re.compile(r"^const EMX_UNUSED (\w+) weight\d+_(\w+)((?:\[\d+\])*) = (\{.*?^\});$", re.M | re.S)
_FUNCTION = re.compile(r"^(?:static inline|EMX_NODE_FN|static) [^\n;=]*?\b(\w+)\([^;{]*\) \{$", re.M)


def generator() -> str:
    """Name and version of what makes the functions; "" where it is not installed."""
    try:
        return f"{GENERATOR} {importlib.metadata.version(GENERATOR)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


def require_generator() -> None:
    """Raises ConfigError where it is not installed."""
    if not generator():
        raise ConfigError(f'--format c needs {GENERATOR}: pip install "rlkit[embed-c]"')


def kernels(graphs: dict[str, ModelProto]) -> tuple[str, int]:
    """The C text of all graphs, by the names of their functions, and the bytes that their constants take.

    Raises ConfigError where the generator is missing or refuses an operator.
    """
    require_generator()
    constants: dict[str, str] = {}
    functions: list[str] = []
    for name, model in graphs.items():
        text, data = _generated(model)
        found = {
            match[2]: f"static const {match[1]} {match[2]}{match[3]} = {match[4]};"
            for match in _CONSTANT.finditer(data)
        }
        text = re.sub(r"\bweight\d+_(k[0-9a-f]{16})\b", r"\1", text)
        if (
            not set(re.findall(r"\bk[0-9a-f]{16}\b", text)) <= found.keys()
            or "static void graph(" not in text
        ):
            raise ConfigError(
                f'{generator()} writes C of an unknown layout; pip install "{GENERATOR}==1.4.0"'
            )
        for own in sorted(set(_FUNCTION.findall(text))):
            text = re.sub(rf"\b{own}\b", f"{name}_{own}", text)
        functions.append(text)
        constants |= {each: found[each] for each in found if re.search(rf"\b{each}\b", text)}
    sizes = {each.name: len(each.raw_data) for model in graphs.values() for each in model.graph.initializer}
    size = sum(sizes[name] for name in constants)
    return "\n\n".join([HEAD, *constants.values(), *functions, TAIL]), size


@cache
def _compiler() -> Any:
    """One for all graphs: it reads some hundred templates first."""
    from emx_onnx_cgen import Compiler
    from emx_onnx_cgen.compiler import CompilerOptions

    options = CompilerOptions(
        model_name="graph", restrict_arrays=False, large_temp_threshold_bytes=0, large_weight_threshold=0
    )
    return Compiler(options)


def _generated(model: ModelProto) -> tuple[str, str]:
    """Functions and constants of one graph as the generator writes them, without heads and declarations."""
    from emx_onnx_cgen.errors import CompilerError

    try:
        text, data = _compiler().compile_with_data_file(model)
    except CompilerError as error:
        raise ConfigError(
            f"--format c: {GENERATOR} refuses the graph: {' '.join(str(error).split())}; {INSTEAD}"
        ) from error
    strange = set(re.findall(r"^#\s*include\s*[<\"](.*?)[>\"]", text, re.M)) - INCLUDES
    calls = re.findall(r"\b(?:malloc|calloc|realloc|free|fopen|printf)\b", text)
    if strange or calls:
        raise ConfigError(
            f"--format c: {GENERATOR} needs {', '.join(sorted({*strange, *calls}))} for this graph; {INSTEAD}"
        )
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    start = _FUNCTION.search(text)  # before it are includes, macros and declarations of constants
    text = text[start.start() if start else 0 :]
    text = re.sub(r"^_Bool graph_load\(.*?^\}\n", "", text, flags=re.M | re.S)
    text = text.replace("\nvoid graph(", "\nstatic void graph(")
    return re.sub(r"\n{3,}", "\n\n", text).strip(), data
