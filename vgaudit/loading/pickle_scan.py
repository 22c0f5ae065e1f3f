"""Reads what a pickle would do from its opcodes; nothing is executed.

A pickle is a program for a stack machine. This walks it with a machine whose
values are descriptions: constants, tuples and lists, globals by name, "the
result of calling …". It is iterative, resolves no name and expands no
reference, so a hostile program costs no more than its length.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from typing import Any, BinaryIO

from vgaudit.loading.pickle_facts import (
    MalformedPickle,
    Name,
    Node,
    PickleFacts,
    Storage,
)

MAX_OPCODES = 10_000_000
MAX_DEPTH = 1_000
MAX_LINE = 65_536


class Sentinel:
    """A value that stands for itself."""


MARK = Sentinel()
OPAQUE = Sentinel()


class BoundedReader:
    """A stream that never asks for more than is left.

    A length of 2⁴⁰ in a broken pickle would otherwise be allocated.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.size = size

    def tell(self) -> int:
        """Returns the position."""
        return self.stream.tell()

    def read(self, count: int) -> bytes:
        """Returns ``count`` bytes, or fewer at the end."""
        return self.stream.read(max(0, min(count, self.size - self.tell())))

    def readline(self) -> bytes:
        """Returns one line, not longer than any honest name."""
        return self.stream.readline(MAX_LINE)


def scan(stream: BinaryIO, size: int, machine: Machine | None = None) -> PickleFacts:
    """Returns what the pickle at the stream's position would do.

    The stream is left behind the pickle's STOP.

    Args:
        stream: a seekable stream.
        size: bytes in the stream, from its beginning.
        machine: what follows the opcodes; by default one that forgets values.

    Raises:
        MalformedPickle: it cannot be followed.
    """
    machine = machine or Machine()
    # Bytes in memory bound themselves, at a third of the time.
    reader = stream if isinstance(stream, io.BytesIO) else BoundedReader(stream, size)
    program = pickletools.genops(reader)  # type: ignore[arg-type]
    try:
        with warnings.catch_warnings():  # of odd escapes in texts
            warnings.simplefilter("ignore")
            for count, (opcode, argument, _) in enumerate(program):
                if count > machine.most:
                    raise MalformedPickle(f"its pickle has over {machine.most} opcodes")
                machine.step(opcode, argument)
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MalformedPickle(f"its pickle is malformed: {text[:120]}") from error
    return machine.facts


class Machine:
    """The stack machine of a pickle, over descriptions.

    Attributes:
        node: what it describes values by. most: opcodes that it follows.
    """

    node: type[Node] = Node
    most = MAX_OPCODES

    def __init__(self) -> None:
        self.facts = PickleFacts()
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Carries out one opcode."""
        self.facts.opcodes.add(opcode.name)
        operation = OPERATIONS.get(opcode.name)
        if operation is not None:
            operation(self, argument)
        elif opcode.arg is not None and not opcode.stack_before and opcode.stack_after:
            self.stack.append(argument)
        else:
            self.by_description(opcode)

    def by_description(self, opcode: pickletools.OpcodeInfo) -> None:
        """Pops and pushes as ``pickletools`` describes the opcode."""
        values = opcode.stack_before
        if pickletools.markobject in values:
            self.pop_mark()
            values = values[: values.index(pickletools.markobject)]
        self.pops(len(values))
        self.stack.extend(OPAQUE for _ in opcode.stack_after)

    # --- the stack -----------------------------------------------------------

    def pops(self, count: int) -> list[Any]:
        """Returns the topmost values, the lowest first; none may be a mark."""
        values = [self.stack.pop() for _ in range(count)]
        if any(value is MARK for value in values):
            raise ValueError("a mark where a value was expected")
        return values[::-1]

    def pop_mark(self) -> list[Any]:
        """Returns what lies above the last mark, and removes the mark."""
        values: list[Any] = []
        while (value := self.stack.pop()) is not MARK:
            values.append(value)
        return values[::-1]

    def push(self, kind: str, items: list[Any]) -> None:
        """Pushes a value built from ``items``."""
        node = self.node(kind, items)
        self.stack.append(node)
        self.deepen(node, items)

    def deepen(self, node: Any, items: list[Any]) -> None:
        """Notes how deep ``node`` is nested, now that it holds ``items``."""
        if not isinstance(node, Node):
            return
        below = max((i.depth for i in items if isinstance(i, Node)), default=0)
        node.depth = max(node.depth, below + 1)
        if node.depth > MAX_DEPTH:
            raise MalformedPickle(f"its pickle is nested too deep: over {MAX_DEPTH}")

    def extend(self, items: list[Any]) -> None:
        """Adds members to the list on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Node) and target.kind == "list":
            target.items.extend(items)
        self.deepen(target, items)

    def fill(self, items: list[Any]) -> None:
        """Adds keys and values, alternating, to the dict on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Node):
            target.items.extend(items[::2])
        self.deepen(target, items)

    # --- names, calls, storages ----------------------------------------------

    def find(self, module: Any, name: Any) -> Name:
        """Returns the global ``module.name`` and notes it."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a global whose name is computed")
        # Python 2's names, which protocols 0 to 2 write and every reader maps.
        known = NAME_MAPPING.get((module, name))
        module, name = known or (IMPORT_MAPPING.get(module, module), name)
        found = Name(f"{module}.{name}")
        self.facts.globals[found.full] = None
        return found

    def find_text(self, argument: str) -> Name:
        """Returns the global of an argument ``module name``."""
        module, _, name = argument.partition(" ")
        return self.find(module, name)

    def call(self, target: Any, items: list[Any]) -> None:
        """Pushes the result of calling ``target``."""
        name = target.full if isinstance(target, Name) else "a computed object"
        self.facts.called[name] = None
        self.push(name, items)
        if name.startswith("torch._utils._rebuild_tensor") and len(items) > 2:
            self.note_shape(items[2])

    def note_shape(self, size: Any) -> None:
        """Notes the shape of a tensor, where it is written out."""
        if isinstance(size, Node) and all(isinstance(n, int) for n in size.items):
            self.facts.tensors.append(tuple(size.items))

    def reduce(self) -> None:
        """Calls what lies below with the tuple of arguments on top."""
        target, arguments = self.pops(2)
        self.call(target, arguments.items if isinstance(arguments, Node) else [])

    def create(self, target: Any, arguments: list[Any]) -> None:
        """Pushes an object of the class ``target`` that awaits its state."""
        name = target.full if isinstance(target, Name) else "a computed class"
        self.facts.created[name] = None
        self.push(name, arguments)

    def build(self) -> None:
        """Gives the state on top to the object below it."""
        state = self.pops(1)
        self.deepen(self.stack[-1], state)

    def persistent(self, name: Any) -> None:
        """Pushes a storage and notes what is expected of it."""
        parts = name.items if isinstance(name, Node) else []
        self.facts.persistent.add(str(parts[0]) if parts else "")
        if len(parts) >= 5 and parts[0] in ("storage", b"storage"):
            kind, key, numel = parts[1], parts[2], parts[4]
            if isinstance(numel, int) and isinstance(kind, Name):
                self.facts.storages[str(key)] = Storage(kind.full, numel)
        self.stack.append(OPAQUE)

    # --- opcodes that need more than one line --------------------------------

    def inst(self, argument: str) -> None:
        """INST: a global, called with what lies above the mark."""
        items = self.pop_mark()
        self.call(self.find_text(argument), items)

    def obj(self) -> None:
        """OBJ: the first above the mark, called with the rest."""
        target, *items = self.pop_mark()
        self.call(target, items)

    def build_dict(self) -> None:
        """DICT: keys and values above the mark."""
        items = self.pop_mark()
        self.push("dict", [])
        self.fill(items)

    def stop(self) -> None:
        """STOP: the value lies on top."""
        (self.facts.root,) = self.pops(1)

    def remember(self, index: int) -> None:
        """PUT: the top of the stack, under a number."""
        self.memo[index] = self.stack[-1]

    def state_protocol(self, number: int) -> None:
        """PROTO."""
        self.facts.protocol = number


OPERATIONS: dict[str, Callable[[Machine, Any], object]] = {
    "PROTO": Machine.state_protocol,
    "FRAME": lambda m, a: None,
    "STOP": lambda m, a: m.stop(),
    "NONE": lambda m, a: m.stack.append(None),
    "NEWTRUE": lambda m, a: m.stack.append(True),
    "NEWFALSE": lambda m, a: m.stack.append(False),
    "GLOBAL": lambda m, a: m.stack.append(m.find_text(a)),
    "STACK_GLOBAL": lambda m, a: m.stack.append(m.find(*m.pops(2))),
    # A registry of globals by number that only exists where it was written.
    "EXT1": lambda m, a: m.stack.append(m.find("copyreg.extension", str(a))),
    "EXT2": lambda m, a: m.stack.append(m.find("copyreg.extension", str(a))),
    "EXT4": lambda m, a: m.stack.append(m.find("copyreg.extension", str(a))),
    "INST": Machine.inst,
    "OBJ": lambda m, a: m.obj(),
    "REDUCE": lambda m, a: m.reduce(),
    "NEWOBJ": lambda m, a: m.create(m.stack.pop(-2), m.pops(1)),
    "NEWOBJ_EX": lambda m, a: m.create(m.stack.pop(-3), m.pops(2)),
    "BUILD": lambda m, a: m.build(),
    "BINPERSID": lambda m, a: m.persistent(m.pops(1)[0]),
    "PERSID": Machine.persistent,
    "MARK": lambda m, a: m.stack.append(MARK),
    "POP_MARK": lambda m, a: m.pop_mark(),
    "POP": lambda m, a: m.stack.pop(),
    "DUP": lambda m, a: m.stack.append(m.stack[-1]),
    "TUPLE": lambda m, a: m.push("tuple", m.pop_mark()),
    "TUPLE1": lambda m, a: m.push("tuple", m.pops(1)),
    "TUPLE2": lambda m, a: m.push("tuple", m.pops(2)),
    "TUPLE3": lambda m, a: m.push("tuple", m.pops(3)),
    "EMPTY_TUPLE": lambda m, a: m.push("tuple", []),
    "EMPTY_LIST": lambda m, a: m.push("list", []),
    "LIST": lambda m, a: m.push("list", m.pop_mark()),
    "EMPTY_DICT": lambda m, a: m.push("dict", []),
    "DICT": lambda m, a: m.build_dict(),
    "APPEND": lambda m, a: m.extend(m.pops(1)),
    "APPENDS": lambda m, a: m.extend(m.pop_mark()),
    "ADDITEMS": lambda m, a: m.extend(m.pop_mark()),
    "SETITEM": lambda m, a: m.fill(m.pops(2)),
    "SETITEMS": lambda m, a: m.fill(m.pop_mark()),
    "PUT": Machine.remember,
    "BINPUT": Machine.remember,
    "LONG_BINPUT": Machine.remember,
    "MEMOIZE": lambda m, a: m.remember(len(m.memo)),
    "GET": lambda m, a: m.stack.append(m.memo[a]),
    "BINGET": lambda m, a: m.stack.append(m.memo[a]),
    "LONG_BINGET": lambda m, a: m.stack.append(m.memo[a]),
}
