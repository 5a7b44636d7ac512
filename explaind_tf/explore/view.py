"""`View`: what the page shows, and its address. One is made from the other, both ways."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Literal, get_args
from urllib.parse import parse_qs, urlencode

Sort = Literal["row", "loss", "wrong", "movement"]
Response = Literal["", "answer", "verdict"]

# More in one address than a screen can show as one.
_MOST_CHOSEN: Final = 64
_LONGEST: Final = 8192
_NAMES: Final = {"label": "class", "inputs": "input", "samples": "sample"}


@dataclass(frozen=True)
class View:
    """What the page shows. Equal views have equal addresses.

    Attributes
    ----------
    sort : {"row", "loss", "wrong", "movement"}
        Order of the inputs: that of the file; the largest loss first; wrong and sure first; the largest movement first.
    label : str or None
        Only inputs of this class.
    page : int
        Which page of the inputs, counted from 0.
    inputs : tuple of int
        Positions of the chosen inputs.
    output : int
        Which output of the measurement.
    step, layer : int and str, optional
        Only what this step, or this layer, did.
    samples : tuple of str
        The chosen training samples, by their ids as text.
    group : str or None
        A group of training samples, chosen as one.
    response : {"", "answer", "verdict"}
        Whether the counterfactual answer is asked for, and its verdict.
    """

    sort: Sort = "row"
    label: str | None = None
    page: int = 0
    inputs: tuple[int, ...] = ()
    output: int = 0
    step: int | None = None
    layer: str | None = None
    samples: tuple[str, ...] = ()
    group: str | None = None
    response: Response = ""

    @property
    def query(self) -> str:
        """The address within the page: ``"?input=3&step=7"``, with what differs from the default."""
        pairs: list[tuple[str, Any]] = []
        for entry in fields(self):
            value = getattr(self, entry.name)
            if value != entry.default:
                name = _NAMES.get(entry.name, entry.name)
                pairs += [(name, one) for one in (value if isinstance(value, tuple) else (value,))]
        return f"?{urlencode(pairs)}"

    def to(self, **changes: Any) -> str:
        """Return the address of the view with some changes."""
        return replace(self, **changes).query

    def toggled(self, position: int) -> "View":
        """Return the view with an input added to those chosen, or taken from them."""
        kept = tuple(one for one in self.inputs if one != position)
        return replace(self, inputs=kept if position in self.inputs else (*kept, position)[-_MOST_CHOSEN:])


def view_of(query: str | None) -> View:
    """Return the view of an address. What cannot be read is left at its default: an address may have been cut.

    Parameters
    ----------
    query : str or None
        With or without the question mark.
    """
    found = parse_qs((query or "")[:_LONGEST].removeprefix("?"), keep_blank_values=True, max_num_fields=256)
    numbers = tuple(dict.fromkeys(n for text in found.get("input", []) if (n := _number(text)) is not None))
    return View(
        sort=_one_of(found, "sort", get_args(Sort)),
        label=_text(found, "class"),
        page=_number(_text(found, "page")) or 0,
        inputs=numbers[:_MOST_CHOSEN],
        output=_number(_text(found, "output")) or 0,
        step=_number(_text(found, "step")),
        layer=_text(found, "layer"),
        samples=tuple(dict.fromkeys(found.get("sample", [])))[:_MOST_CHOSEN],
        group=_text(found, "group"),
        response=_one_of(found, "response", get_args(Response)),
    )


def _text(found: Mapping[str, list[str]], name: str) -> str | None:
    return found[name][-1] if found.get(name) else None


def _number(text: str | None) -> int | None:
    """Return a whole number that is not negative, or None."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 12 else None


def _one_of(found: Mapping[str, list[str]], name: str, choices: tuple[Any, ...]) -> Any:
    text = _text(found, name)
    return text if text in choices else choices[0]
