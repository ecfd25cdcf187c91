"""The public names and what they take. `python tests/api_shape.py` pins today's in a file."""

import dataclasses
import inspect
import json
from pathlib import Path

import jaxstyle

PINNED = Path(__file__).with_name("api_shape.json")


def shape():
    """`{name: {"kind", …}}` of everything that `import jaxstyle` offers."""
    return {
        name: _of(thing)
        for name, thing in ((name, getattr(jaxstyle, name)) for name in sorted(dir(jaxstyle)))
        if not name.startswith("_") and not inspect.ismodule(thing)
    }


def _of(thing):
    if inspect.isfunction(thing):
        return {"kind": "function", **_parameters(thing)}
    if not inspect.isclass(thing):
        return {"kind": type(thing).__name__}
    if dataclasses.is_dataclass(thing):
        return {"kind": "class", "fields": [field.name for field in dataclasses.fields(thing)]}
    return {"kind": "class", "fields": list(getattr(thing, "_fields", ()))}


def _parameters(function):
    positional, keywords = [], {}
    for parameter in inspect.signature(function).parameters.values():
        required = parameter.default is inspect.Parameter.empty
        default = "required" if required else repr(parameter.default)
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            keywords[parameter.name] = default
        else:
            positional.append([parameter.name, default])
    return {"positional": positional, "keywords": keywords}


if __name__ == "__main__":
    PINNED.write_text(json.dumps(shape(), indent=1) + "\n", encoding="utf-8")
