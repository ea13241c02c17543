"""@technique: one function becomes a Python call, a command, a card of the report and a page of the documentation.

A technique is a function in a file of its own::

    @technique(family="attribute", paper="arXiv:1312.6034", see="what to look for", caution="what it does not prove")
    def saliency(network, images, *, target: Target = None, signed: Annotated[bool, Field(...)] = False) -> Heatmap: ...

Its keyword-only parameters are its options: their annotations give the type, limits and help of the command line's
options, and are checked for Python callers too. Techniques are found through the entry-point group
``convscope.techniques``, each entry a module or a package that is walked; convscope's own come by the same door.
Finding them reads their source without running it, so that ``convscope --help`` need not import torch.

What a technique takes before its options, any of these in this order: ``index``, what a scan of a data set wrote;
``network``; ``images``. A question on an index looks through the index's own network, ``index.network``.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, ParamSpec, TypeVar

from pydantic import BeforeValidator, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from convscope.errors import ConvscopeError, ImageError, OptionError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from convscope.index import Index
    from convscope.network import Network
    from convscope.results import Result

GROUP = "convscope.techniques"
TAKEN = {"index": "an index, which `convscope scan` writes", "network": "a network", "images": "pictures"}
TENSOR = "tensor "  # how provenance begins to describe an option that is a tensor
LAST = 100  # the place of a technique that claims none
FAMILIES = {
    "look": "What is inside?",
    "attribute": "Which pixels mattered?",
    "synthesize": "Which picture would excite, match or fool it?",
    "dataset": "What does it do over a whole data set?",
    "robustness": "When does it fail?",
}

Target = Annotated[
    int | str | Sequence[int | str] | None,
    BeforeValidator(lambda given: given.tolist() if hasattr(given, "tolist") else given),  # tensors and arrays
    Field(
        description="class to explain: an index, a label or an unambiguous part of one; the predicted class if left out"
    ),
]
Layer = Annotated[
    str | None, Field(description="layer name as `convscope layers` lists it; chosen and said if left out")
]
UnitOption = Annotated[
    str | int | None, Field(description="CHANNEL or CHANNEL,ROW,COLUMN of the layer, instead of a class")
]
Seed = Annotated[int, Field(ge=0, description="seed of everything random")]

_TEXT = "text"  # marks annotations of values that the command line hands on as they were typed


def fraction(given: Any) -> Any:
    """A number, also written as a fraction."""
    if not isinstance(given, str):
        return given
    above, line, below = given.partition("/")
    try:
        return float(above) / float(below) if line else float(above)
    except (ValueError, ZeroDivisionError):
        raise ValueError("should be a number or a fraction, as 0.016 or 4/255") from None


Fraction = Annotated[float, _TEXT, BeforeValidator(fraction), Field(gt=0, allow_inf_nan=False)]

_PICTURE = "a picture"  # marks annotations; torch, of which tensors are, is not imported here
if TYPE_CHECKING:
    Picture = str | Path | Tensor | Sequence[str | Path | Tensor] | None
else:
    Picture = Annotated[
        Any,
        BeforeValidator(lambda given: _checked_picture(given)),
        _PICTURE,
        Field(description="a picture file; in Python also a tensor (3, H, W)"),
    ]

P = ParamSpec("P")
R = TypeVar("R", bound="Result", covariant=True)


@dataclass(frozen=True)
class Option:
    """One keyword-only parameter of a technique."""

    name: str
    annotation: Any
    default: Any
    info: FieldInfo

    @property
    def description(self) -> str:
        return self.info.description or ""


class Technique(Generic[P, R]):
    """A technique: callable as the function that it wraps, with what the command line and the pages need beside it."""

    def __init__(
        self,
        function: Callable[P, R],
        family: str,
        paper: str = "",
        see: str = "",
        caution: str = "",
        order: int = LAST,
        quick: Mapping[str, Any] | None = None,
        keeps_size: bool = False,
        films: bool = False,
        example: Mapping[str, Any] | None = None,
        exact: bool = False,
        together: bool = False,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name: str = function.__name__.replace("_", "-")
        self.family: str = family
        self.paper: str = paper
        self.see: str = see
        self.caution: str = caution
        self.order: int = order
        self.quick: Mapping[str, Any] = quick or {}
        self._example = example or {}
        self.keeps_size: bool = keeps_size
        self.films: bool = films
        self.exact: bool = exact
        self.together: bool = together

    @cached_property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    @cached_property
    def example(self) -> Mapping[str, Any]:
        """Options of its picture on pages; what takes a moment to make is made when it is asked for."""
        return {name: value() if callable(value) else value for name, value in self._example.items()}

    @cached_property
    def takes_images(self) -> bool:
        return "images" in self._parameters

    @cached_property
    def needs_images(self) -> bool:
        """Whether it cannot do without pictures."""
        return self.takes_images and self._parameters["images"].default is inspect.Parameter.empty

    @cached_property
    def makes_adversarial(self) -> bool:
        """Whether its results are pictures that fool the network, which can be saved by themselves."""
        from convscope.results import Adversarial

        returned = typing.get_type_hints(self.function).get("return")
        return isinstance(returned, type) and issubclass(returned, Adversarial)

    @cached_property
    def takes_network(self) -> bool:
        return "network" in self._parameters

    @cached_property
    def takes_index(self) -> bool:
        return "index" in self._parameters

    @cached_property
    def summary(self) -> str:
        """The first sentence of its docstring."""
        return (inspect.getdoc(self.function) or "").split("\n\n")[0].replace("\n", " ")

    @cached_property
    def options(self) -> tuple[Option, ...]:
        """Its keyword-only parameters, in order."""
        hints = typing.get_type_hints(self.function, include_extras=True)
        return tuple(
            Option(name, hints[name], parameter.default, _field(hints[name]))
            for name, parameter in self._parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        )

    @cached_property
    def _model(self) -> Any:
        fields: dict[str, Any] = {o.name: (o.annotation, o.default) for o in self.options}
        return create_model(self.name, __config__={"arbitrary_types_allowed": True, "extra": "forbid"}, **fields)

    def check(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with defaults filled in; :class:`OptionError` says which one is wrong and what it may be."""
        unknown = [name for name in options if name not in {o.name for o in self.options}]
        if unknown:
            known = ", ".join(o.name for o in self.options) or "none"
            raise OptionError(f"{self.name} has no option {unknown[0]!r}; its options are: {known}")
        try:
            model = self._model(**options)
        except ValidationError as error:
            raise OptionError(_sentence(self.name, error)) from None
        return {o.name: getattr(model, o.name) for o in self.options}

    def _arguments(self, given: Mapping[str, Any]) -> list[Any]:
        """What the function takes before its options, checked, in the order of :data:`TAKEN`."""
        from convscope.images import check_images

        if "images" in given and not self.takes_images:
            neither = "" if self._taken else "no network and "
            raise OptionError(f"{self.name} takes {neither}no pictures: {self._call}")
        pictures = check_images(given["images"]) if "images" in given else None
        found: list[Any] = [_opened(given["index"])] if self.takes_index else []
        if self.takes_network:
            network = _loaded(given["network"], pictures)
            network = network.exact if self.exact else network
            found.append(network.drawing if self.family == "synthesize" else network)
        return found if pictures is None else [*found, pictures]

    @cached_property
    def _taken(self) -> list[str]:
        return [name for name in TAKEN if name in self._parameters]

    @cached_property
    def _call(self) -> str:
        return f"{self.name}({', '.join(self._taken)})"

    def _given(self, args: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
        """Index, network and pictures among the arguments, by place or by name; those are taken out of the options."""
        places = self._taken if self.takes_images else [*self._taken, "images"]  # pictures too many are told
        if len(args) > len(places) or any(name in options for name in places[: len(args)]):
            raise OptionError(f"{self.name} is called as {self._call}; its options have names")
        found = dict(zip(places, args, strict=False))
        found |= {name: options.pop(name) for name in places if name in options}
        found = {name: value for name, value in found.items() if name != "images" or value is not None}
        needed = [name for name in self._taken if name != "images" or self.needs_images]
        missing = next((name for name in needed if name not in found), None)
        if missing:
            raise OptionError(f"{self.name} needs {TAKEN[missing]}: {self._call}")
        return found

    def _digests(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Of the files that options name as pictures."""
        values = [given[o.name] for o in self.options if is_picture(o.annotation)]
        named = [one for value in values for one in (value if isinstance(value, (list, tuple)) else [value])]
        return {str(one): digest(one) for one in named if isinstance(one, (str, Path))}

    def on(self, network: Any = None, images: Any = None, *, index: Any = None, **options: Any) -> R:
        """Call it with what it takes of an index, a network and pictures."""
        given = {"index": index, "network": network, "images": images}
        return self._run(*(given[name] for name in self._taken), **options)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        run: Callable[..., R] = self._run
        return run(*args, **kwargs)

    def _run(self, *args: Any, **options: Any) -> Any:
        import torch

        from convscope import progress
        from convscope.results import Provenance, settle

        taken = self._given(args, options)
        given = self.check(options)
        # Tensors made under inference mode cannot enter autograd later.
        with torch.inference_mode(False), torch.enable_grad():
            arguments = self._arguments(taken)
            with progress.counted() as steps:
                result = self.function(*arguments, **given)
            provenance = Provenance(
                technique=self.name, options={name: _noted(value) for name, value in given.items()},
                layer=result.layer, seed=given.get("seed"), digests=self._digests(given),
                stopped=None if result.state is None else steps.done,
                **_about(arguments[0] if self.takes_index or self.takes_network else None),
            )  # fmt: skip
            return _finite(settle(result, provenance))


def technique(
    *,
    family: str,
    paper: str = "",
    see: str = "",
    caution: str = "",
    order: int = LAST,
    quick: Mapping[str, Any] | None = None,
    keeps_size: bool = False,
    films: bool = False,
    example: Mapping[str, Any] | None = None,
    exact: bool = False,
    together: bool = False,
) -> Callable[[Callable[P, R]], Technique[P, R]]:
    """Register the function below as a technique.

    Args:
        family: one of ``look``, ``attribute``, ``synthesize``, ``dataset``, ``robustness``.
        paper: where it comes from, with the section.
        see: what to look for in its picture.
        caution: what the picture does not prove.
        order: its place in lists within the family, the smallest first; by name where equal.
        quick: options with which it runs in a moment on a small network: what the tests of the promises give it.
        keeps_size: on the command line photographs keep their size and proportions, each is worked on by itself, and
            the longer side is at most the option ``size`` where there is one. Otherwise the network's own preparation
            crops them.
        example: options of its picture on the demo page and in the gallery, where the defaults take too long or lack
            something that the technique needs; a function gives a value that takes a moment to make.
        films: whether the command takes films as well, whose frames go through it one by one.
        exact: whether it is computed in float32, and says so, also where the network is asked for in bfloat16.
        together: whether its one result is of all pictures together, so that it takes dozens: its picture on the demo
            page and in the gallery is made of many parts of the few photographs there.
    """
    if family not in FAMILIES:
        raise OptionError(f"{family!r} is no family of techniques; those are {', '.join(FAMILIES)}")
    return lambda function: Technique(
        function, family, paper, see, caution, order, quick, keeps_size, films, example, exact, together
    )


def _loaded(network: Network | nn.Module | str, pictures: Tensor | None) -> Network:
    """A bare module is taken to be made for pictures of the size that it is given."""
    from torch import nn

    from convscope.zoo import load_network

    if isinstance(network, nn.Module) and pictures is not None:
        return load_network(network, input_size=(pictures.shape[-2], pictures.shape[-1]))
    return load_network(network)


def _opened(index: Index | str | Path) -> Index:
    """What a scan wrote, from its path."""
    if isinstance(index, (str, Path)):
        from convscope.index import open_index

        return open_index(index)
    if not hasattr(index, "provenance"):
        raise OptionError(f"an index is the folder that `convscope scan` writes, or open_index() of it, not {index!r}")
    return index


def _about(source: Index | Network | None) -> dict[str, Any]:
    """What provenance says of the network, and of the index that was read through it."""
    from convscope.network import Network

    if source is None:
        return {"network": "", "weights": "", "precision": "float32", "device": "cpu"}
    if isinstance(source, Network):
        return {
            "network": source.name, "weights": source.weights, "precision": source.arithmetic,
            "device": str(source.device), "defence": str(source.defence) if source.defence else None,
        }  # fmt: skip
    said = source.provenance
    found = {name: said[name] for name in ("network", "weights", "precision", "device")}
    return {**found, "loaded": dict(said.get("loaded", {})), "index": str(source.path)}


def _noted(value: Any) -> Any:
    """An option as provenance keeps it: a tensor by its shape and digest, and a path as text."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_noted(each) for each in value)
    if isinstance(value, Mapping):
        return {name: _noted(each) for name, each in value.items()}
    if not hasattr(value, "detach"):
        return value
    numbers = value.detach().cpu().double().numpy()
    return f"{TENSOR}{tuple(value.shape)} sha256:{hashlib.sha256(numbers.tobytes()).hexdigest()[:16]}"


def digest(path: str | Path) -> str:
    """``sha256:`` and the digest of a file; :class:`ImageError` when there is none."""
    try:
        return f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()}"
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error


def _checked_picture(given: Any) -> Any:
    each = given if isinstance(given, (list, tuple)) else [given]
    if given is not None and not all(isinstance(one, (str, Path)) or hasattr(one, "detach") for one in each):
        raise ValueError("should be a picture file or a tensor (3, H, W), or several of them")
    return given


def pictures_of(option: Any) -> list[Tensor]:
    """The pictures that an option of type :data:`Picture` names, each (3, H, W) in [0, 1] at its own size.

    Raises :class:`ImageError` for what cannot be read.
    """
    import torch

    from convscope.images import check_images, read_image

    if option is None:
        return []
    if isinstance(option, (list, tuple)):
        return [picture for each in option for picture in pictures_of(each)]
    if isinstance(option, torch.Tensor):
        return list(check_images(option))
    return [read_image(option)]


def is_picture(annotation: Any) -> bool:
    """Whether an option's annotation is :data:`Picture`, or built on it."""
    return _PICTURE in getattr(annotation, "__metadata__", ())


def is_text(annotation: Any) -> bool:
    """Whether an option's values are parsed from text by the option itself, as those of :data:`Fraction`."""
    return _TEXT in getattr(annotation, "__metadata__", ())


def _field(annotation: Any) -> FieldInfo:
    """The last of its fields: a technique may say more of a common option than the option itself does."""
    found = [extra for extra in getattr(annotation, "__metadata__", ()) if isinstance(extra, FieldInfo)]
    return found[-1] if found else FieldInfo()


def _sentence(name: str, error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    option = str(first["loc"][0]) if first["loc"] else "options"
    return f"{name}: {option.replace('_', '-')} {message.replace('input ', '')}, not {first.get('input')!r}"


def _finite(result: Any) -> Any:
    values = result.values
    if values.is_floating_point() and values.numel() and result.finite and not bool(values.isfinite().all()):
        made = result.provenance
        raise ConvscopeError(
            f"{made.technique} gave NaN or Inf: {made.network or 'it'} overflows on this picture in {made.precision}; "
            "try --precision float32, or check the weights"
        )
    return result


# ---- finding techniques without importing them


@dataclass(frozen=True)
class Entry:
    """Where a technique is, read from its source."""

    name: str
    module: str
    function: str
    family: str
    summary: str
    order: int


def _files(location: str) -> Iterator[tuple[str, Path]]:
    """(module name, file) of a module or of everything below a package."""
    spec = importlib.util.find_spec(location)
    if spec is None or spec.origin is None:
        return
    if spec.submodule_search_locations is None:
        yield location, Path(spec.origin)
        return
    for folder in spec.submodule_search_locations:
        for path in sorted(Path(folder).rglob("*.py")):
            if not path.stem.endswith("_test") and path.stem != "conftest":
                parts = path.relative_to(folder).with_suffix("").parts
                name = ".".join((location, *(p for p in parts if p != "__init__")))
                yield name, path


def _entries(module: str, path: Path) -> Iterator[Entry]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if (
                isinstance(decorator, ast.Call)
                and getattr(decorator.func, "id", getattr(decorator.func, "attr", "")) == "technique"
            ):
                words = {k.arg: k.value.value for k in decorator.keywords if isinstance(k.value, ast.Constant)}
                summary = (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
                yield Entry(
                    node.name.replace("_", "-"), module, node.name, str(words.get("family", "")), summary,
                    int(str(words.get("order", LAST))),
                )  # fmt: skip


@lru_cache(maxsize=1)
def discover() -> Mapping[str, Entry]:
    """Name to entry of every technique that is installed, by family, order and name; nothing is imported."""
    locations = sorted({entry.value for entry in entry_points(group=GROUP)})
    found = {e.name: e for location in locations for module, path in _files(location) for e in _entries(module, path)}
    order = {family: place for place, family in enumerate(FAMILIES)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[1].family, LAST), item[1].order, item[0])))


def load(name: str) -> Technique[..., Any]:
    """Import one technique."""
    entry = discover()[name]
    found: Technique[..., Any] = getattr(importlib.import_module(entry.module), entry.function)
    return found
