"""A reader of the pickle in a PyTorch file that builds data and calls no functions of the file.

Python's unpickler calls the functions that the file names. A subclass with its own `find_class`
would not, but it still allocates memory for any memo index in the file (64 GB with ten bytes) and
hashes keys of nested tuples, which may take forever. This reader interprets the opcodes
(`pickletools.genops` splits them) that a state dict needs, and accepts only the names of tensors.
"""

import io
import pickletools
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxstyle.errors import JaxstyleError

# A VGG's pickle has about 20 kB; the limit bounds the time for a malicious one.
MAX_PICKLE_BYTES = 1 << 20
_DTYPES: dict[str, np.dtype] = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
_CALLS = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    # The last two are from Python 2, which wrote the oldest files.
    *("BINUNICODE", "SHORT_BINUNICODE", "SHORT_BINSTRING", "BINSTRING"),
}
_PUTS = {"BINPUT", "LONG_BINPUT"}
_GETS = {"BINGET", "LONG_BINGET"}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


class Storage(NamedTuple):
    """A flat array in the file."""

    dtype: np.dtype
    """Type of its numbers."""
    key: str
    """Name of the storage in the file."""
    numel: int
    """Number of elements."""


class Tensor(NamedTuple):
    """A view of a storage: element `i, j, ...` is at `offset + i·stride[0] + j·stride[1] ...`."""

    storage: Storage
    offset: int
    """Index of the first element in the storage."""
    size: tuple[int, ...]
    """Shape of the tensor."""
    stride: tuple[int, ...]
    """Stride of each axis in elements."""


class _Global(NamedTuple):
    """A name in the file, which is never imported."""

    module: str
    name: str


class Malformed(ValueError):
    """Not a pickle of torch.save; the caller adds the file's name to the message."""


def load(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Read one pickle from `stream`, up to its end.

    Returns:
      Its value (strings, numbers, tuples, lists, dicts, `Storage` and `Tensor`), and all storages
      that it refers to, by their keys.

    Raises:
      Malformed: the pickle has opcodes that no state dict has, or is truncated.
      JaxstyleError: the pickle names a class or function that does not belong to tensors.
    """
    try:
        machine = _Machine()
        return machine.run(stream), machine.storages
    except (Malformed, JaxstyleError):
        raise
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        raise Malformed(f"its pickle is damaged ({error})") from error


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self, stream: io.BytesIO) -> Any:
        for opcode, argument, position in pickletools.genops(stream):
            if position is not None and position > MAX_PICKLE_BYTES:
                raise Malformed(f"its pickle is larger than {MAX_PICKLE_BYTES} bytes")
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise Malformed("its pickle does not end")

    def step(self, name: str, argument: Any) -> None:
        stack, memo = self.stack, self.memo
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _PUTS:
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in _GETS:
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _TUPLES:
            stack.append(tuple(self.pop(_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self.pop_to_mark()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("APPEND", "APPENDS"):
            items = self.pop(1) if name == "APPEND" else self.pop_to_mark()
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.pop(2) if name == "SETITEM" else self.pop_to_mark()
            _fill(_expect(stack[-1], dict), zip(items[::2], items[1::2], strict=True))
        elif name == "GLOBAL":
            stack.append(_find(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            stack.append(_find(*self.pop(2)))
        elif name == "REDUCE":
            function, arguments = self.pop(2)
            stack.append(_build(_expect(function, _Global), _expect(arguments, tuple)))
        elif name == "BUILD":
            # Version numbers of modules (`_metadata`), which are ignored.
            self.pop(1)
            _expect(stack[-1], dict)
        elif name == "BINPERSID":
            storage = _storage(*_expect(stack.pop(), tuple))
            if self.storages.setdefault(storage.key, storage) != storage:
                raise Malformed(f"its storage {storage.key!r} is said to be of two sizes or types")
            stack.append(storage)
        elif name not in ("PROTO", "FRAME"):
            raise Malformed(f"its pickle has an opcode {name}, which no state dict needs")

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise Malformed("its pickle is damaged (the stack is empty)")
        split = len(self.stack) - count
        items = self.stack[split:]
        del self.stack[split:]
        return items

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _expect(value: Any, kind: type | tuple[type, ...]) -> Any:
    # `Tensor` and other NamedTuples are not tuples of the file.
    if not isinstance(value, kind) or (kind is tuple and hasattr(value, "_fields")):
        raise Malformed("its pickle is damaged (a value is not of the type it must be)")
    return value


def _fill(target: dict, pairs: Any) -> dict:
    for key, value in pairs:
        # Hashing nested tuples can take forever.
        if not isinstance(key, str | int):
            raise Malformed("its pickle has a dict whose keys are not names")
        target[key] = value
    return target


def _find(module: str, name: str) -> _Global:
    reference = _Global(module, name)
    is_storage = module in ("torch", "torch.cuda") and name in _DTYPES
    if not (is_storage or tuple(reference) in _CALLS):
        shown = f"{module}.{name}".encode("unicode_escape").decode()[:100]
        raise JaxstyleError(
            f"it names {shown}, which is not part of a tensor, so it was refused and "
            "nothing was executed; save the plain state dict: torch.save(model.state_dict(), FILE)"
        )
    return reference


def _build(function: _Global, arguments: tuple[Any, ...]) -> Any:
    if function.name == "OrderedDict":
        return (
            _fill({}, (_expect(pair, (list, tuple)) for pair in arguments[0])) if arguments else {}
        )
    if function.name == "Size":
        return _integers(arguments[0])
    if function.name == "_rebuild_parameter":
        return _expect(arguments[0], Tensor)
    if function.name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
        storage, offset, size, stride = arguments[:4]
        (offset,) = _integers((offset,))
        tensor = Tensor(_expect(storage, Storage), offset, _integers(size), _integers(stride))
        _check_bounds(tensor)
        return tensor
    raise Malformed(f"its pickle calls {function.name}")


def _integers(values: Any) -> tuple[int, ...]:
    if len(values) > 32 or not all(type(v) is int and 0 <= v < 1 << 62 for v in values):
        raise Malformed("a tensor's shape, strides or offset are not whole numbers from 0")
    return tuple(values)


def _check_bounds(tensor: Tensor) -> None:
    if len(tensor.size) != len(tensor.stride):
        raise Malformed("a tensor has not as many strides as axes")
    count = 1
    last = tensor.offset
    for size, stride in zip(tensor.size, tensor.stride, strict=True):
        count *= size
        last += max(size - 1, 0) * stride
    # The second test rejects views that repeat numbers, which could be terabytes for a few bytes.
    if count and (last >= tensor.storage.numel or count > tensor.storage.numel):
        raise Malformed(
            f"a tensor of shape {tensor.size} lies outside of its {tensor.storage.numel} numbers"
        )


def _storage(
    kind: str, dtype: _Global, key: str, place: str, numel: int, view: Any = None
) -> Storage:
    """Return a storage from its persistent id."""
    if kind != "storage" or _expect(dtype, _Global).name not in _DTYPES:
        raise Malformed("its pickle refers to something that is not a storage")
    if view is not None:
        raise Malformed("its storages are views of others, which are not supported")
    (numel,) = _integers((numel,))
    return Storage(_DTYPES[dtype.name], _expect(key, str), numel)
