"""The pickle inside a torch file, read without ever calling what it asks for.

A pickle is a small program whose GLOBAL and REDUCE instructions may name and call anything
Python can import. This reader walks the instructions itself, knows the names of `torch_names`
only, and builds nothing but plain containers, numbers, text and the tensors handed to it.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable

import numpy as np

from jaxvid.core.torch_names import (
    ALLOWED,
    OLD_MODULES,
    PLAIN,
    Buffer,
    Global,
    Namespace,
    Record,
    TorchFileError,
    key,
    set_of,
)

MAX_DEPTH = 100  # containers inside containers
MAX_VALUES = 10_000_000  # values one would meet walking the whole tree


def unpickle(data: bytes, functions: dict[str, Callable], storage: Callable) -> object:
    """Runs the pickle `data`.

    Args:
      data: the whole pickle, any protocol.
      functions: more allowed names, as "module name": how tensors are made.
      storage: maps a persistent id (a tuple) to what those functions take.
    Returns:
      Nested dicts, lists, tuples and sets of plain values and arrays.
    Raises:
      TorchFileError: a name that is not allowed, or anything that is not a sound pickle.
    """
    machine = _Machine({**ALLOWED, **functions}, storage)
    try:
        value = machine.run(data)
    except TorchFileError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:100]
        raise TorchFileError(f"its pickle is broken ({reason or type(error).__name__})") from error
    _check_tree(value)
    return value


def _pairs(values: list) -> Iterable[tuple]:
    return ((key(name), value) for name, value in zip(values[::2], values[1::2], strict=True))


class _Machine:
    """The stack machine of the pickle format; see `pickletools` for what each opcode does."""

    def __init__(self, allowed: dict, storage: Callable):
        self.allowed = allowed
        self.storage = storage
        self.stack: list = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}

    def run(self, data: bytes):
        for opcode, argument, position in pickletools.genops(data):
            if opcode.name == "STOP":
                if position + 1 != len(data) or len(self.stack) != 1 or self.marks:
                    raise ValueError("values are left over at its end")
                return self.stack.pop()
            if opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _PUSH_ARGUMENT:
                self.stack.append(argument)
            elif opcode.name not in ("PROTO", "FRAME"):
                handler = getattr(self, "do_" + opcode.name.lower(), None)
                if handler is None:
                    raise ValueError(f"opcode {opcode.name} is not allowed")
                handler() if argument is None else handler(argument)
        raise ValueError("it has no end")

    def pop(self):
        if self.marks and len(self.stack) <= self.marks[-1]:
            raise ValueError("stack underflow")
        return self.stack.pop()

    def pop_to_mark(self) -> list:
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def top(self, kind: type):
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise ValueError(f"no {kind.__name__} where one is needed")
        return self.stack[-1]

    def do_mark(self):
        self.marks.append(len(self.stack))

    def do_pop(self):
        if self.marks and len(self.stack) == self.marks[-1]:
            self.marks.pop()
        else:
            self.stack.pop()

    def do_pop_mark(self):
        self.pop_to_mark()

    def do_dup(self):
        self.stack.append(self.stack[-1])

    def do_empty_list(self):
        self.stack.append([])

    def do_empty_dict(self):
        self.stack.append({})

    def do_empty_set(self):
        self.stack.append(set())

    def do_list(self):
        self.stack.append(self.pop_to_mark())

    def do_tuple(self):
        self.stack.append(tuple(self.pop_to_mark()))

    def do_tuple1(self):
        self.stack.append((self.pop(),))

    def do_tuple2(self):
        last = self.pop()
        self.stack.append((self.pop(), last))

    def do_tuple3(self):
        last, middle = self.pop(), self.pop()
        self.stack.append((self.pop(), middle, last))

    def do_frozenset(self):
        self.stack.append(set_of(frozenset)(self.pop_to_mark()))

    def do_dict(self):
        self.stack.append(dict(_pairs(self.pop_to_mark())))

    def do_append(self):
        value = self.pop()
        self.top(list).append(value)

    def do_appends(self):
        values = self.pop_to_mark()
        self.top(list).extend(values)

    def do_additems(self):
        values = self.pop_to_mark()
        self.top(set).update(set_of(list)(values))

    def do_setitem(self):
        value, name = self.pop(), self.pop()
        self.top(dict)[key(name)] = value

    def do_setitems(self):
        values = self.pop_to_mark()
        self.top(dict).update(_pairs(values))

    def do_put(self, index: int):
        self.memo[index] = self.stack[-1]

    do_binput = do_long_binput = do_put

    def do_memoize(self):
        self.memo[len(self.memo)] = self.stack[-1]

    def do_get(self, index: int):
        self.stack.append(self.memo[index])

    do_binget = do_long_binget = do_get

    def do_global(self, name: str):
        module, _, attribute = name.partition(" ")
        self.push_global(module, attribute)

    def do_stack_global(self):
        attribute, module = self.pop(), self.pop()
        self.push_global(module, attribute)

    def push_global(self, module: str, attribute: str):
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise ValueError("a name that is no text")
        name = f"{OLD_MODULES.get(module, module)} {attribute}"
        if name not in self.allowed:
            asked = " ".join(f"{module}.{attribute}".split())[:200]
            raise TorchFileError(
                f"its pickle asks for {asked}, which is not allowed: "
                "only tensors and plain containers are read"
            )
        value = self.allowed[name]
        self.stack.append(Global(name, value) if callable(value) else value)

    def call(self, function, args):
        if not isinstance(function, Global) or type(args) is not tuple:
            raise ValueError("it calls what is not a function")
        self.stack.append(function.function(*args))

    def do_reduce(self):
        args, function = self.pop(), self.pop()
        self.call(function, args)

    do_newobj = do_reduce

    def do_newobj_ex(self):
        if self.pop() != {}:
            raise ValueError("keyword arguments are not allowed")
        self.do_reduce()

    def do_inst(self, name: str):
        args = tuple(self.pop_to_mark())
        self.do_global(name)
        self.call(self.pop(), args)

    def do_obj(self):
        function, *args = self.pop_to_mark()
        self.call(function, tuple(args))

    def do_build(self):
        """Fills the object on top with a state; attributes of other objects are not kept."""
        state, target = self.pop(), self.stack[-1]
        if isinstance(target, Namespace) and isinstance(state, dict):
            target.update(state)
        elif isinstance(target, Record) and isinstance(state, tuple):
            target["state"] = state
        elif isinstance(target, Buffer) and isinstance(state, tuple):
            target[:] = bytes(state[0]) if isinstance(state[0], bytes | bytearray) else b""
        elif isinstance(target, np.dtype) and isinstance(state, tuple):
            if state[1:2] not in (("<",), ("|",), ("=",)):
                raise ValueError("numbers in big-endian order")
        elif not isinstance(target, OrderedDict):  # whose state is torch's _metadata
            raise ValueError(f"it sets attributes of a {type(target).__name__}")

    def do_binpersid(self):
        self.stack.append(self.storage(self.pop()))


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUSH_ARGUMENT = frozenset(
    """INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING
    BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE BINUNICODE SHORT_BINUNICODE
    BINUNICODE8""".split()
)


def _check_tree(root) -> None:
    """Refuses cycles, great depth, what is no plain value, and small files that unfold to much.

    Walks each container once; `sizes` counts the values below it as often as they are met.
    """
    sizes: dict[int, int] = {}
    open_ids: set[int] = set()
    todo: list[tuple[object, bool]] = [(root, False)]
    while todo:
        value, children_done = todo.pop()
        inside = _children(value)
        if inside is None or id(value) in sizes:
            continue
        if children_done:
            open_ids.discard(id(value))
            sizes[id(value)] = 1 + sum(sizes.get(id(child), 1) for child in inside)
            if sizes[id(value)] > MAX_VALUES:
                raise TorchFileError(f"its pickle unfolds to more than {MAX_VALUES} values")
            continue
        if id(value) in open_ids:
            raise TorchFileError("its pickle holds a container that contains itself")
        open_ids.add(id(value))
        if len(open_ids) > MAX_DEPTH:
            raise TorchFileError(f"its pickle nests containers more than {MAX_DEPTH} deep")
        todo.append((value, True))
        todo.extend((child, False) for child in inside)


def _children(value) -> list | None:
    """What a container holds; None for a plain value."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if type(value) in (list, tuple, set, frozenset):
        return list(value)
    if isinstance(value, (*PLAIN, np.ndarray)):
        return None
    kept = value.name if isinstance(value, Global) else f"a torch {type(value).__name__}"
    raise TorchFileError(f"its pickle keeps {kept} itself as a value, which is not allowed")
