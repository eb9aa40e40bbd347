"""One input of one node: is the value, or the link, one that the node can take?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

InputError = dict[str, Any]
"""One entry of a node's ``errors``: type, message, details, extra_info."""

LONGEST_LIST_SHOWN = 20


def required_input_missing(name: str) -> InputError:
    return {
        "type": "required_input_missing",
        "message": "Required input is missing",
        "details": name,
        "extra_info": {"input_name": name},
    }


def check_link(
    name: str,
    link: list[Any],
    config: list[Any],
    output_types: Callable[[str], tuple[str, ...]],
) -> InputError | None:
    """Refuse a link of the wrong shape or type.

    Raises what looking it up raises: `KeyError` for a node that is not there, `IndexError` for a
    slot that is not there, `TypeError` for what is neither.
    """
    if len(link) != 2:
        return {
            "type": "bad_linked_input",
            "message": "Bad linked input, must be a length-2 list of [node_id, slot_index]",
            "details": name,
            "extra_info": {"input_name": name, "input_config": config, "received_value": link},
        }
    source, slot = link
    if not isinstance(source, str):
        raise KeyError(source)
    if isinstance(slot, bool) or not isinstance(slot, int):
        raise TypeError(f"the slot of a link must be an integer, not {type(slot).__name__}")
    types = output_types(source)
    if not 0 <= slot < len(types):
        raise IndexError("tuple index out of range")
    received = types[slot]
    if fits(received, config[0]):
        return None
    return {
        "type": "return_type_mismatch",
        "message": "Return type mismatch between linked nodes",
        "details": f"{name}, received_type({received}) mismatch input_type({config[0]})",
        "extra_info": {
            "input_name": name,
            "input_config": config,
            "received_type": received,
            "linked_node": link,
        },
    }


def fits(received: str, wanted: str | list[str]) -> bool:
    """Whether an output of type *received* may feed an input of type *wanted*.

    Types may be several, with commas between; ``*`` is any.
    """
    if isinstance(wanted, list):
        return received in ("*", "COMBO")
    if "*" in (received, wanted):
        return True
    offered = {part.strip() for part in received.split(",")}
    return not offered.isdisjoint(part.strip() for part in wanted.split(","))


def coerce(name: str, value: Any, config: list[Any]) -> tuple[Any, InputError | None]:
    """The value as the node will get it, as lenient as ComfyUI is."""
    kind = config[0]
    if isinstance(value, dict) and "__value__" in value:
        value = value["__value__"]
    try:
        match kind:
            case "INT":
                return int(value), None
            case "FLOAT":
                return _finite(value), None
            case "STRING":
                return str(value), None
            case "BOOLEAN":
                return bool(value), None
            case _:
                return value, None
    except Exception as broken:
        return value, {
            "type": "invalid_input_type",
            "message": f"Failed to convert an input value to a {kind} value",
            "details": f"{name}, {value}, {broken}",
            "extra_info": {
                "input_name": name,
                "input_config": config,
                "received_value": value,
                "exception_message": str(broken),
            },
        }


def refuse_out_of_bounds(name: str, value: Any, config: list[Any]) -> InputError | None:
    """Refuse a number outside its range or a choice that is not offered."""
    kind, options = config
    if isinstance(kind, list):
        return None if value in kind else _value_not_in_list(name, value, config)
    if not isinstance(value, int | float):
        return None
    if "min" in options and value < options["min"]:
        words = ("value_smaller_than_min", f"smaller than min of {options['min']}")
    elif "max" in options and value > options["max"]:
        words = ("value_bigger_than_max", f"bigger than max of {options['max']}")
    else:
        return None
    return {
        "type": words[0],
        "message": f"Value {value} {words[1]}",
        "details": name,
        "extra_info": {"input_name": name, "input_config": config, "received_value": value},
    }


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):  # it would make every later answer invalid JSON
        raise ValueError(f"{number} is not a finite number")
    return number


def _value_not_in_list(name: str, value: Any, config: list[Any]) -> InputError:
    choices = config[0]
    long = len(choices) > LONGEST_LIST_SHOWN
    shown = f"(list of length {len(choices)})" if long else str(choices)
    return {
        "type": "value_not_in_list",
        "message": "Value not in list",
        "details": f"{name}: '{value}' not in {shown}",
        "extra_info": {
            "input_name": name,
            "input_config": None if long else config,
            "received_value": value,
        },
    }
