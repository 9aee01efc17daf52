"""Trees of frozen, typed dataclasses: checked, overridden by `path=value`, written to JSON and read back, diffed.

The schema is closed: which classes may stand in a field is read off its annotation, so a config file or a JSON
names classes of this project only, and nothing is imported, evaluated or expanded while it is read.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, TypeVar, Union

from t5x_like import strict_json
from t5x_like.errors import UserError, did_you_mean, nearest

T = TypeVar("T")
MAX_JSON_BYTES = 16 * 2**20
WHOLE = "the configuration"
"""In messages, where no field has a path."""
MAX_WHOLE = 2**53
"""The largest whole number in a configuration: what JSON keeps exactly everywhere, and all arithmetic of ours holds."""


@functools.cache
def fields(cls: type) -> dict[str, Any]:
    """Field name -> annotation, of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


def _options(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(o for member in typing.get_args(annotation) for o in _options(member))
    return (annotation,)


def _classes(annotation: Any) -> dict[str, type]:
    return {
        o.__name__: o for o in _options(annotation) if dataclasses.is_dataclass(o) and isinstance(o, type)
    }


def name_of(annotation: Any) -> str:
    """An annotation in words, for error messages."""
    names = []
    for option in _options(annotation):
        if option is type(None):
            names.append("none")
        elif typing.get_origin(option) is Literal:
            names.extend(repr(v) for v in typing.get_args(option))
        elif typing.get_origin(option) is tuple:
            names.append(f"a list of {name_of(typing.get_args(option)[0])}")
        elif typing.get_origin(option) is dict:
            names.append("a JSON object" + (" of text" if typing.get_args(option)[1] is str else ""))
        else:
            names.append(
                {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}.get(
                    option.__name__, option.__name__
                )
            )
    return " or ".join(names)


def _refuse(path: str, annotation: Any, value: Any, where: str | None, help: str | None = None) -> UserError:
    shown = type(value).__name__ if dataclasses.is_dataclass(value) else repr(value)
    return UserError(f"{path} wants {name_of(annotation)}, not {shown:.80}", where=where, help=help)


# ---- checking ------------------------------------------------------------------------------------


def check(value: Any, annotation: Any, path: str = "", where: str | None = None) -> None:
    """Raises `UserError` where `value`, or anything inside it, is not what its annotation says."""
    for option in _options(annotation):
        if _fits(value, option):
            break
    else:
        raise _refuse(path or WHOLE, annotation, value, where)
    _check_plain(value, path or WHOLE, where)
    if dataclasses.is_dataclass(value):
        for name, hint in fields(type(value)).items():
            check(getattr(value, name), hint, f"{path}.{name}" if path else name, where)
    elif isinstance(value, tuple):
        item = typing.get_args(next(o for o in _options(annotation) if typing.get_origin(o) is tuple))[0]
        for i, element in enumerate(value):
            check(element, item, f"{path}.{i}", where)


def _check_plain(value: Any, path: str, where: str | None) -> None:
    """Refuses what no field can use: numbers without end, and text that no file can be named by."""
    for v in value.values() if isinstance(value, dict) else (value,):
        if isinstance(v, float) and not math.isfinite(v):
            raise UserError(f"{path} is {v}; it must be a finite number", where=where or path)
        if isinstance(v, int) and abs(v) > MAX_WHOLE:
            raise UserError(f"{path} is {v:.3g}; whole numbers go up to 2**53", where=where or path)
        if isinstance(v, str) and "\0" in v:
            raise UserError(f"{path} holds a NUL character", where=where or path)


def _fits(value: Any, option: Any) -> bool:
    if option is Any:
        return True
    if option is type(None):
        return value is None
    origin = typing.get_origin(option)
    if origin is Literal:
        return any(value == v and type(value) is type(v) for v in typing.get_args(option))
    if origin is tuple:
        return isinstance(value, tuple)
    if origin is dict:
        inner = (str,) if typing.get_args(option)[1] is str else (str, int, float, bool, type(None))
        return isinstance(value, dict) and all(
            isinstance(k, str) and isinstance(v, inner) for k, v in value.items()
        )
    if option is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if option is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, option)


# ---- overriding ----------------------------------------------------------------------------------


def override(tree: T, assignment: str, where: str | None = None) -> T:
    """A copy of `tree` with `path=value` applied, such as `model.d_model=128` or `optimizer=AdamW`.

    A value is read by the annotation of its field: numbers (`1e6` is a whole number where one is wanted),
    true/false, none, a class by its name with its defaults, lists with commas, or JSON. Where only one class can
    stand, some of its fields will do (`mesh=data=-1,fsdp=2`, the others at their defaults); if it has one required
    field, that field's value (`data.sources=a,b`).
    """
    where = where or f"--set={assignment}"
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise UserError(f"an override reads path=value, not {assignment!r}", where=where)
    return _override(tree, path.strip().split("."), text, (), where)


def _override(tree: Any, path: list[str], text: str, done: tuple[str, ...], where: str) -> Any:
    name, rest = path[0], path[1:]
    here = ".".join((*done, name))
    if isinstance(tree, tuple):
        if not name.isdigit() or int(name) >= len(tree):
            raise UserError(
                f"{'.'.join(done)} has {len(tree)} entries, counted from 0; {name!r} is none of them",
                where=where,
            )
        items = list(tree)
        if rest:
            items[int(name)] = _override(items[int(name)], rest, text, (*done, name), where)
        else:
            items[int(name)] = parse(text, type(items[int(name)]), here, where)
        return tuple(items)
    if not dataclasses.is_dataclass(tree) or isinstance(tree, type):
        raise UserError(
            f"{'.'.join(done)} is a plain value ({tree!r}); it has no field {name!r}", where=where
        )
    known = fields(type(tree))
    if name not in known:
        raise _unknown(tree, name, done, where)
    if rest:
        new = _override(getattr(tree, name), rest, text, (*done, name), where)
    else:
        new = parse(text, known[name], here, where, current=getattr(tree, name))
    return dataclasses.replace(tree, **{name: new})


def _unknown(tree: Any, name: str, done: tuple[str, ...], where: str | None) -> UserError:
    prefix = ".".join(done) + "." if done else ""
    holder = f"{'.'.join(done)} ({type(tree).__name__})" if done else "the run"
    known = list(fields(type(tree)))
    help = did_you_mean(name, known, prefix=prefix)
    deeper = {path.rpartition(".")[2]: path for path, _ in reversed(list(leaves(tree)))}
    found = name if name in deeper else nearest(name, deeper) if nearest(name, known) is None else None
    if found is not None:  # the right word in the wrong place
        help = f"did you mean {prefix}{deeper[found]}?"
    return UserError(f"no field {name!r} in {holder}", where=where, help=help)


def parse(text: str, annotation: Any, path: str, where: str | None = None, current: Any = None) -> Any:
    """The value that `text` writes, for a field of this annotation."""
    text = text.strip()
    options = _options(annotation)
    if text[:1] in "{[" and text:
        try:
            data = strict_json.loads(text)
        except json.JSONDecodeError as e:
            raise UserError(f"{path}: not valid JSON ({e.msg} at character {e.pos})", where=where) from None
        except RecursionError:
            raise UserError(f"{path}: JSON too deep", where=where) from None
        except ValueError as e:  # a key twice, a number of thousands of digits
            raise UserError(f"{path}: {e}", where=where) from None
        return from_data(data, annotation, path, where)
    if type(None) in options and text.lower() in ("none", "null", ""):
        return None
    for option in options:
        origin = typing.get_origin(option)
        if origin is Literal:
            for v in typing.get_args(option):
                if str(v) == text:
                    return v
        elif origin is tuple:
            item = typing.get_args(option)[0]
            return tuple(
                parse(part, item, f"{path}.{i}", where) for i, part in enumerate(text.split(",")) if part
            )
        elif option is bool and text.lower() in ("true", "false", "1", "0", "yes", "no"):
            return text.lower() in ("true", "1", "yes")
        elif option is int and (number := _whole(text)) is not None:
            return number
        elif option is float:
            try:
                return float(text)
            except ValueError:
                continue
        elif option is str:
            return text
    classes = _classes(annotation)
    if text in classes:
        return _construct(classes[text], {}, path, where)
    if len(classes) == 1:
        (cls,) = classes.values()
        pairs = [part.partition("=") for part in text.split(",")]
        written = {name.strip(): value for name, equals, value in pairs if equals}
        required = [
            f.name
            for f in dataclasses.fields(cls)
            if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        if all(equals for _, equals, _ in pairs) and (not required or written.keys() <= fields(cls).keys()):
            if len(written) < len(pairs):
                raise UserError(f"{path}: a field is named twice in {text!r}", where=where)
            return _from_pairs(cls, written, path, where)
        if len(required) == 1:
            value = parse(text, fields(cls)[required[0]], f"{path}.{required[0]}", where)
            return _construct(cls, {required[0]: value}, path, where)
        if not required:
            first = "=VALUE or ".join(f"{path}.{name}" for name in list(fields(cls))[:2])
            raise _refuse(path, annotation, text, where, f"set its fields: {first}=VALUE, for example")
    choices = list(classes) + [
        str(v) for o in options if typing.get_origin(o) is Literal for v in typing.get_args(o)
    ]
    raise _refuse(path, annotation, text, where, did_you_mean(text, choices) if choices else None)


def _from_pairs(cls: type, written: dict[str, str], path: str, where: str | None) -> Any:
    """`data=2,fsdp=4`: a class with its defaults but for these fields."""
    known = fields(cls)
    for name in written:
        if name not in known:
            help = did_you_mean(name, known, prefix=f"{path}.")
            raise UserError(f"no field {name!r} in {path} ({cls.__name__})", where=where, help=help)
    values = {n: parse(text, known[n], f"{path}.{n}", where) for n, text in written.items()}
    return _construct(cls, values, path, where)


def _whole(text: str) -> int | None:
    try:
        return int(text.replace("_", ""))
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _construct(cls: type, values: dict[str, Any], path: str, where: str | None) -> Any:
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.init
        and f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        example = json.dumps({"type": cls.__name__, **dict.fromkeys(missing, "...")})
        raise UserError(
            f"{path}: {cls.__name__} cannot be made without {', '.join(missing)}",
            where=where,
            help=f"such as {example}" if path == WHOLE else f"write it as JSON: --set='{path}={example}'",
        )
    return cls(**values)


# ---- JSON ----------------------------------------------------------------------------------------


def to_data(tree: Any) -> Any:
    """Plain JSON data; a dataclass becomes an object whose `type` is its class name."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return {
            "type": type(tree).__name__,
            **{name: to_data(getattr(tree, name)) for name in fields(type(tree))},
        }
    if isinstance(tree, (tuple, list)):
        return [to_data(v) for v in tree]
    if isinstance(tree, dict):
        return {k: to_data(v) for k, v in tree.items()}
    return tree


def from_data(data: Any, annotation: Any, path: str = "", where: str | None = None) -> Any:
    """The inverse of `to_data` for a value of this annotation. Missing fields take their defaults."""
    shown = path or WHOLE
    if isinstance(data, dict):
        classes = _classes(annotation)
        if not classes:
            check(data, annotation, path, where)
            return dict(data)
        name = data.get("type", next(iter(classes)) if len(classes) == 1 else None)
        if not isinstance(name, str) or name not in classes:
            raise UserError(
                f"{shown}: unknown type {name!r}", where=where, help=did_you_mean(str(name), classes)
            )
        cls = classes[name]
        known, values = fields(cls), {}
        for key, value in data.items():
            if key == "type":
                continue
            inner = f"{path}.{key}" if path else key
            if key not in known:
                raise UserError(
                    f"no field {key!r} in {shown} ({name})",
                    where=where,
                    help=did_you_mean(key, known, prefix=f"{path}." if path else ""),
                )
            values[key] = from_data(value, known[key], inner, where)
        return _construct(cls, values, shown, where)
    if isinstance(data, list):
        for option in _options(annotation):
            if typing.get_origin(option) is tuple:
                item = typing.get_args(option)[0]
                return tuple(from_data(v, item, f"{path}.{i}", where) for i, v in enumerate(data))
        raise _refuse(shown, annotation, data, where)
    if isinstance(data, float) and data.is_integer() and not _fits(data, annotation):
        data = int(data)
    check(data, annotation, path, where)
    return data


def from_json(text: str, annotation: Any, where: str | None = None) -> Any:
    """Reads the JSON of one tree; refuses more than 16 MB, and anything outside the schema."""
    if len(text) > MAX_JSON_BYTES:
        raise UserError(
            f"a configuration of {len(text)} characters; at most {MAX_JSON_BYTES} are read", where=where
        )
    try:
        data = strict_json.loads(text)
    except (ValueError, RecursionError) as e:  # ValueError: also a number of thousands of digits
        place = f"{where}:{e.lineno}" if isinstance(e, json.JSONDecodeError) and where else where
        raise UserError(f"not valid JSON: {e}", where=place) from None
    return from_data(data, annotation, where=where)


# ---- comparing -----------------------------------------------------------------------------------


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf; a dataclass among several possible classes also yields (path, class name)."""
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        if path:
            yield path, type(tree).__name__
        for name in fields(type(tree)):
            yield from leaves(getattr(tree, name), f"{path}.{name}" if path else name)
    elif isinstance(tree, tuple):
        yield path, f"{len(tree)} entries"
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}.{i}")
    else:
        yield path, tree


def diff(a: Any, b: Any) -> list[tuple[str, Any, Any]]:
    """(path, value in a, value in b) wherever two trees differ; '-' where a path is missing."""
    left, right = dict(leaves(a)), dict(leaves(b))
    return [
        (p, left.get(p, "-"), right.get(p, "-"))
        for p in dict.fromkeys((*left, *right))
        if left.get(p, "-") != right.get(p, "-") or type(left.get(p)) is not type(right.get(p))
    ]


def non_defaults(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf that differs from its class's default, classes included."""
    for f in dataclasses.fields(tree):
        if not f.init:
            continue
        value, here = getattr(tree, f.name), f"{path}.{f.name}" if path else f.name
        default = f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default
        if dataclasses.is_dataclass(value):
            if type(value) is not type(default):
                yield here, type(value).__name__
            yield from non_defaults(value, here)
        elif isinstance(value, tuple) and any(dataclasses.is_dataclass(v) for v in value):
            for i, item in enumerate(value):
                yield f"{here}.{i}", type(item).__name__
                yield from non_defaults(item, f"{here}.{i}")
        elif value != default:
            yield here, value
