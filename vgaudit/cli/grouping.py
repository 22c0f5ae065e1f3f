"""Options that several commands share, declared once as a group."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

Command = Callable[..., int]


def grouped(command: Command) -> Command:
    """Returns the command with each group of options in place of its parameter.

    A parameter whose annotation is a dataclass is a group. Typer reads signatures,
    so the command that it sees has the group's fields as parameters, in their order
    and with their defaults; the function that was written gets the group.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if dataclasses.is_dataclass(parameter.annotation)
    }

    @functools.wraps(command)
    def run(**given: Any) -> int:
        for name, group in groups.items():
            fields = dataclasses.fields(group)
            given[name] = group(
                **{field.name: given.pop(field.name) for field in fields}
            )
        return command(**given)

    parameters = list(_spread(signature, groups))
    vars(run)["__signature__"] = signature.replace(parameters=parameters)
    run.__annotations__ = {entry.name: entry.annotation for entry in parameters}
    run.__annotations__["return"] = signature.return_annotation
    return run


def _spread(
    signature: inspect.Signature, groups: dict[str, Any]
) -> Iterator[inspect.Parameter]:
    for name, parameter in signature.parameters.items():
        if name not in groups:
            yield parameter
            continue
        hints = get_type_hints(groups[name], include_extras=True)
        for field in dataclasses.fields(groups[name]):
            yield inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=field.default,
                annotation=hints[field.name],
            )
