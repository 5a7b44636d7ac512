"""Makes options of a command from the fields of dataclasses, so that each is described once.

A command's parameter that is annotated with a dataclass stands for one option for each field. Default and help are the
field's. A row of ``_PLACES`` says how a value is typed on a command line. A field of a simple type needs no row.
"""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import typer

from explaind_tf.cli.values import to_axes, to_bytes, to_names, to_slice

# A Literal becomes an Enum.
_SIMPLE: Final = (bool, int, float, str, Enum)
_NO_DEFAULT: Final = inspect.Parameter.empty


@dataclass(frozen=True)
class Place:
    """How the value of a field is typed on a command line.

    Attributes
    ----------
    kind : type or None
        Type of the value for typer; by default the field's own type.
    flag : str, optional
        The option's name, if it differs from the field's.
    hint : str
        Text to add to the field's help.
    default : Any
        The field's default as it is typed, if that differs.
    read : callable
        Takes the value of typer and returns that of the field. Its errors are a refused question, exit code 1.
    settings : mapping
        More arguments of ``typer.Option``. Errors of a ``parser`` among them are wrong usage, exit code 2.
    """

    kind: Any = None
    flag: str | None = None
    hint: str = ""
    default: Any = _NO_DEFAULT
    read: Callable[[Any], Any] = lambda value: value
    settings: Mapping[str, Any] = field(default_factory=dict)


# Fields by name. None: the field is not an option.
_PLACES: Final[dict[str, Place | None]] = {
    "axes": Place(str, hint="Separated by commas.", default="", read=to_axes),
    "layers": Place(str | None, hint="Separated by commas.", read=to_names),
    "steps": Place(slice | None, settings={"parser": to_slice, "metavar": "A:B"}),
    "groups": None,
    "batch_size": None,
    "memory_limit": Place(int | None, hint="Such as 4GB.", settings={"parser": to_bytes, "metavar": "SIZE"}),
    "max_nodes": Place(settings={"min": 1}),
    "top": Place(settings={"min": 1}),
    "shown": Place(settings={"min": 1}),
    "validate": Place(settings={"min": 0, "metavar": "N"}),
    "workers": Place(settings={"min": 1, "metavar": "N"}),
    "scheduler": Place(settings={"metavar": "ADDRESS"}),
    "as_json": Place(flag="--json"),
}


class Only:
    """Names the only fields that become options of a command, as in ``Annotated[Options, Only("tolerance")]``."""

    def __init__(self, *names: str) -> None:
        self.names = names


@dataclass(frozen=True)
class _Group:
    """A parameter of a command that stands for several options."""

    parameter: str
    kind: type
    places: Mapping[str, Place]

    def options(self) -> Iterator[inspect.Parameter]:
        """Yield an option for each field that has a place."""
        for entry in fields(self.kind):
            if entry.name in self.places:
                yield _option(entry, self.places[entry.name])

    def gather(self, typed: dict[str, Any]) -> Any:
        """Remove the group's values from what was typed, and return them as the dataclass."""
        values = {name: typed.pop(name) for name in self.places}
        read = {
            name: value if value is None else self.places[name].read(value) for name, value in values.items()
        }
        return self.kind(**read)


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with options in place of its dataclass parameters.

    Parameters
    ----------
    command : callable
        A command with annotated parameters, some with a dataclass or ``Annotated[dataclass, Only(...)]``.

    Returns
    -------
    callable
        Takes all options by name, and calls the command with the dataclasses made from them.

    Raises
    ------
    TypeError
        If a field's type cannot be typed as it is, and no row of ``_PLACES`` says how.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: list[_Group] = []
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        group = _group_of(parameter.name, hints[parameter.name])
        if group is None:
            parameters.append(
                parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            )
        else:
            groups.append(group)
            parameters.extend(group.options())

    @functools.wraps(command)
    def called(**typed: Any) -> None:
        gathered = {group.parameter: group.gather(typed) for group in groups}
        command(**typed, **gathered)

    # What typer reads.
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return called


def _group_of(name: str, annotation: Any) -> _Group | None:
    kind, *extras = get_args(annotation) if get_origin(annotation) is Annotated else (annotation,)
    if not is_dataclass(kind):
        return None
    assert isinstance(kind, type)
    chosen = next((extra.names for extra in extras if isinstance(extra, Only)), None)
    types = get_type_hints(kind)
    places = {
        entry.name: place
        for entry in fields(kind)
        if chosen is None or entry.name in chosen
        if (place := _place_of(entry.name, types[entry.name])) is not None
    }
    return _Group(name, kind, places)


def _place_of(name: str, annotation: Any) -> Place | None:
    """Return how a field is typed, None if it is not an option."""
    place = _PLACES.get(name, Place())
    if place is None or place.kind is not None:
        return place
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    kinds: list[Any] = [part for part in parts if part is not NoneType]
    if get_origin(kinds[0]) is Literal:
        kinds[0] = Enum(name, {choice: choice for choice in get_args(kinds[0])})  # type: ignore[misc]
        place = replace(place, read=lambda chosen: chosen.value)
    if len(kinds) > 1 or not (isinstance(kinds[0], type) and issubclass(kinds[0], _SIMPLE)):
        raise TypeError(
            f"The field {name!r} has the type {annotation}, which cannot be typed on a command line as it is. Add a row to "
            f"option_groups._PLACES that says how it is typed, or None to leave the field out."
        )
    return replace(place, kind=kinds[0] | None if NoneType in parts else kinds[0])


def _option(entry: Field[Any], place: Place) -> inspect.Parameter:
    option = typer.Option(
        *filter(None, [place.flag]),
        help=" ".join(filter(None, [entry.metadata["help"], place.hint])),
        **place.settings,
    )
    default = entry.default if place.default is _NO_DEFAULT else place.default
    return inspect.Parameter(
        entry.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=_NO_DEFAULT if default is MISSING else default,
        annotation=Annotated[place.kind, option],
    )
