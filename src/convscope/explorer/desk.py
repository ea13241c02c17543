"""What the server knows: the network, pictures, an index, jobs; everything that the routes ask for."""

from __future__ import annotations

import importlib.util
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

import convscope
from convscope import registry
from convscope.errors import ConvscopeError, OptionError, nearest
from convscope.explorer import forms, lines, studies
from convscope.explorer.cache import PICTURES
from convscope.explorer.jobs import Job, Jobs
from convscope.explorer.live import BRUSHES, Live
from convscope.explorer.pictures import Pictures, png
from convscope.explorer.settings import Settings
from convscope.feedforward.files import shipped
from convscope.images import to_uint8
from convscope.reporting import photographs, recipe
from convscope.views.colour import symmetric_colour
from convscope.zoo import load_network

FILTER = 96  # pixels of a side at least
NEIGHBOURS = 12


class NotThere(ConvscopeError):
    """Something is asked for that does not exist."""


@dataclass
class Desk:
    """Made once, when the server starts."""

    settings: Settings

    def __post_init__(self) -> None:
        self.network = load_network(**self.settings.loaded)
        self.index = self._opened()
        key = f"{self.network.name}-{self.network.input_size[0]}x{self.network.input_size[1]}-{self.network.crop:g}"
        folder = self.settings.cache / PICTURES / "".join(c if c.isalnum() or c in "-." else "-" for c in key)
        self.pictures = Pictures(folder, self.network, self.settings.pixels)
        self.live = Live(self.network, self.pictures)
        self.studies = studies.Studies()
        index = None if self.index is None else [str(self.index.path), dict(self.index.provenance)]
        self.jobs = Jobs(self.settings, {"network": self.network.name, "weights": self.network.weights,
                                         "loaded": dict(self.settings.loaded), "index": index},
                         spared=lambda: {self.pictures.path(name) for name in list(self.pictures.titles)})  # fmt: skip
        for name, path in photographs():
            self.pictures.add(path, name)
        self._free = set(self.pictures.titles)

    def _opened(self) -> Any:
        if self.settings.index is None:
            return None
        from convscope.index import open_index

        return open_index(self.settings.index, network=self.network)

    def close(self) -> None:
        """End what was started."""
        self.jobs.close()

    # ---- the network

    @cached_property
    def _about(self) -> dict[str, Any]:
        layers = [self.live.described(info) for info in self.network.layers()]
        network = self.network
        return {
            "name": network.name, "weights": network.weights, "input_size": list(network.input_size),
            "device": str(network.device), "precision": network.arithmetic, "classes": network.classes,
            "labels": [network.label(i) for i in range(network.classes)], "layers": layers,
            "default_layer": network.default_layer, "first_layer": network.first_layer,
            "parameters": sum(p.numel() for p in network.module.parameters()), "styles": list(shipped()),
            "version": convscope.__version__, "index": self.index is not None,
        }  # fmt: skip

    def about(self) -> dict[str, Any]:
        """The network as the page needs it."""
        return self._about

    def layer(self, name: str) -> str:
        """The name of a layer that there is; :class:`UnknownLayer` names the nearest."""
        return self.network.layer(name).name

    def unit(self, layer: str, channel: int, picture: str | None = None) -> dict[str, Any]:
        """A channel: where it fires most, its numbers, whether it is dead; how to repeat its map of a picture."""
        info = self.network.layer(layer)
        if not 0 <= channel < info.channels:
            raise NotThere(f"layer {layer!r} has channels 0 to {info.channels - 1}, not {channel}")
        filtered = isinstance(self.network.module.get_submodule(info.name), nn.Conv2d)
        scanned = self._scanned(info.name, channel)
        best = scanned["patches"] if scanned else self.live.strongest(info.name, channel, list(self.pictures.titles))
        open_ones = list(self.pictures.titles)
        statistics = scanned["statistics"] if scanned else self.live.statistics(info.name, channel, open_ones)
        silent = all(patch["value"] <= 0 for patch in best)
        return {
            "layer": info.name, "channel": channel, "channels": info.channels, "filter": filtered, "patches": best,
            "class": self.network.class_of(info.name, channel),
            "statistics": statistics, "silent": silent, "pictures": len(self.index or self.pictures.titles),
            "scanned": scanned is not None, "size": list(self.network.input_size),
            **(self._lines(info.name, picture, channel) if picture else {}),
        }  # fmt: skip

    def _lines(self, layer: str, picture: str, channel: int | None = None) -> dict[str, str]:
        return lines.of_layer(self.network, layer, self._given(self.known(picture)), channel)

    def sheet(self, picture: str, layer: str, page: int) -> dict[str, Any]:
        """Numbers about a layer's feature maps of a picture, and how to repeat them."""
        return {**self.live.sheet(self.known(picture), layer, page)[1], **self._lines(layer, picture)}

    def _scanned(self, layer: str, channel: int) -> dict[str, Any] | None:
        """What the index knows of a channel; None where it does not know the layer."""
        if self.index is None or layer not in self.index.layers:
            return None
        found, statistics = self.index.patches(layer), self.index.statistics(layer)
        patches = [
            {"place": int(found.ids[channel, k]), "value": float(found.values[channel, k]),
             "row": int(found.rows[channel, k]), "column": int(found.columns[channel, k]),
             "box": self.live._box(layer, int(found.rows[channel, k]), int(found.columns[channel, k]))}
            for k in range(found.ids.shape[1]) if found.ids[channel, k] >= 0
        ]  # fmt: skip
        told = {
            name: float(getattr(statistics, name)[channel]) for name in ("zeros", "silent", "mean", "spread", "maximum")
        }
        told |= {
            "histogram": np.asarray(statistics.histogram)[channel].tolist(),
            "edges": np.asarray(statistics.edges).tolist(),
        }
        return {"patches": patches, "statistics": told}

    def seen(self, layer: str, channel: int, row: int, column: int, picture: str | None, place: int | None) -> bytes:
        """A PNG of what makes a unit fire there, in a picture that is open or in one of the index."""
        if (picture is None) == (place is None):
            raise OptionError("name a picture, or a place of the index")
        if picture is not None:
            return self.live.seen(self.pictures.image(self.known(picture)), layer, channel, row, column)
        self._row(place or 0)
        return self.live.seen(self._asked().prepared(place), layer, channel, row, column)

    def filter(self, layer: str, channel: int) -> bytes:
        """A PNG of a convolution's filter: in colour on colour, else its strongest input channels in a row."""
        part = self.network.module.get_submodule(self.network.layer(layer).name)
        if not isinstance(part, nn.Conv2d) or not 0 <= channel < part.out_channels:
            raise NotThere(f"layer {layer!r} has no filter {channel} to draw")
        weights = part.weight[channel].detach().float().cpu()
        if len(weights) == 3:
            tiles = weights[None].numpy()
        else:
            order = weights.flatten(1).norm(dim=1).argsort(descending=True)[:8]
            tiles = weights[order][:, None].expand(-1, 3, -1, -1).numpy()
        bound = float(np.abs(tiles).max()) or 1.0
        drawn = symmetric_colour(tiles, bound)
        scale = max(1, math.ceil(FILTER / drawn.shape[1]))
        rows = [np.kron(tile, np.ones((scale, scale, 1), np.uint8)) for tile in drawn]
        gap = np.full((rows[0].shape[0], 4, 3), 255, np.uint8)
        joined = [part for row in rows for part in (row, gap)][:-1]
        return png(np.concatenate(joined, 1))

    # ---- pictures

    def listed(self) -> list[dict[str, Any]]:
        """The pictures of this session, the latest first, and the free photographs behind them."""
        names = list(self.pictures.titles)
        ordered = [*reversed([n for n in names if n not in self._free]), *(n for n in names if n in self._free)]
        return [{"id": name, "title": self.pictures.title(name), "free": name in self._free} for name in ordered]

    def add(self, source: bytes, title: str) -> dict[str, Any]:
        """Open a picture."""
        if not source:
            raise OptionError("the picture is empty; send its bytes")
        return self.said(self.pictures.add(source, title or "picture"))

    def known(self, name: str) -> str:
        """A picture's name, where it is there."""
        if not self.pictures.path(name).is_file():
            raise NotThere(f"picture {name} is not there any more; add it again")
        return name

    def bytes_of(self, name: str) -> bytes:
        """The PNG."""
        return self.pictures.path(self.known(name)).read_bytes()

    def said(self, name: str) -> dict[str, Any]:
        """A picture with what the network says of it."""
        height, width = self.pictures.image(self.known(name)).shape[1:]
        return {
            "id": name, "title": self.pictures.title(name), "height": height, "width": width,
            "prediction": self.live.prediction(name), **lines.of_changes(self.network, self._given(name)),
        }  # fmt: skip

    def changed(self, name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """What it says when the picture is changed."""
        boxes = [tuple(box) for box in wanted["boxes"]]
        height, width = self.pictures.image(self.known(name)).shape[1:]
        inside = all(t >= 0 and x >= 0 and 0 < h <= height - t and 0 < w <= width - x for t, x, h, w in boxes)
        if not inside or len({box[2:] for box in boxes}) > 1 or len(boxes) > BRUSHES:
            raise OptionError(f"a cover is at most {BRUSHES} squares of one size inside {height} x {width} pixels")
        found = self.live.changed(name, **{**wanted, "boxes": boxes})
        return {**found, **lines.of_changes(self.network, self._given(name), wanted)}

    # ---- techniques and jobs

    def techniques(self) -> list[dict[str, Any]]:
        """Those that can run here, with their forms."""
        found = [registry.load(name) for name in registry.discover()]
        return [
            forms.described(technique) for technique in found if self.index is not None or not technique.takes_index
        ]

    def submit(
        self, name: str, options: Mapping[str, Any], pictures: list[str], resume: str | None, control: bool
    ) -> dict[str, Any]:
        """Queue a technique."""
        if name not in registry.discover():
            raise NotThere(f"there is no technique {name!r}{nearest(name, registry.discover())}")
        technique = registry.load(name)
        if technique.takes_index and self.index is None:
            raise OptionError(f"{name} asks an index; start the explorer with one: convscope explore PHOTOS.index")
        if technique.takes_images and not pictures:
            raise OptionError(f"{name} needs a picture; open one first")
        if not technique.takes_images and pictures:
            raise OptionError(f"{name} takes no pictures")
        if control and not (technique.takes_network and technique.takes_images):
            raise OptionError(f"{name} makes no heat map that could be compared with that of random weights")
        taken = forms.taken(technique, options)
        named = {
            o.name: taken[o.name] for o in technique.options if registry.is_picture(o.annotation) and o.name in taken
        }
        plain = {name: value for name, value in taken.items() if name not in named}
        technique.check(plain)
        stopped = None if resume is None else self.jobs.get(resume)
        if resume is not None and (stopped is None or not stopped.stopped):
            raise OptionError("there is no stopped run to go on with; run it from the start")
        files = {name: self.pictures.path(self.known(name)) for name in pictures}
        titles = [self.pictures.title(name) for name in pictures]
        job = self.jobs.submit(name, taken, pictures, files, titles, self._files(named), stopped, control)
        return self.told(job)

    def _files(self, named: Mapping[str, Any]) -> dict[str, Any]:
        """Options that are pictures, as the files that their names stand for."""

        def file(name: Any) -> str:
            return str(self.pictures.path(self.known(str(name))))

        return {
            option: [file(n) for n in value] if isinstance(value, list) else file(value)
            for option, value in named.items()
        }

    def told(self, job: Job) -> dict[str, Any]:
        """A job, and the lines that repeat it."""
        technique, given = registry.load(job.technique), self._given(*job.pictures)
        options = {name: self._readable(technique, name, value) for name, value in job.options.items()}
        return {
            **job.told(), "command": recipe.command(technique, self.network, options, given),
            "python": recipe.python(technique, self.network, options, given),
        }  # fmt: skip

    def _given(self, *pictures: str) -> recipe.Given:
        """What the lines name that repeat something: the pictures by their titles, the index, the network."""
        return recipe.Given(
            photographs=[self._file(name) for name in pictures], index=str(self.settings.index),
            loaded={"network": "builtin", **self.settings.loaded},
        )  # fmt: skip

    def _file(self, picture: str) -> str:
        return f"{self.pictures.title(picture)}.png"

    def _readable(self, technique: Any, option: str, value: Any) -> Any:
        """A picture's title for its name."""
        if option not in {o.name for o in technique.options if registry.is_picture(o.annotation)}:
            return value
        names = value if isinstance(value, list) else [value]
        found = [self._file(str(name)) for name in names]
        return found if isinstance(value, list) else found[0]

    # ---- the index

    def _asked(self) -> Any:
        if self.index is None:
            raise NotThere("there is no index here; start the explorer with one: convscope explore PHOTOS.index")
        return self.index

    def index_about(self) -> dict[str, Any] | None:
        """What was scanned."""
        if self.index is None:
            return None
        return {
            "path": str(self.index.path.name), "pictures": len(self.index), "layers": list(self.index.layers),
            "code_layers": list(self.index.code_layers), "source": str(self.index.provenance.get("source", "")),
        }  # fmt: skip

    @cached_property
    def _columns(self) -> dict[str, Any]:
        """What is known of every readable picture, in the order of ``ids``."""
        table = self._asked().pictures(
            columns=["id", "path", "label", "label_index", "predicted", "probability", "correct"]
        )
        rows = {name: table.column(name).to_pylist() for name in table.column_names}
        place = {number: at for at, number in enumerate(rows["id"])}
        order = [place[int(number)] for number in self._asked().ids]
        return {name: [values[at] for at in order] for name, values in rows.items()}

    @cached_property
    def _flat(self) -> np.ndarray[Any, Any]:
        """(N, 2): the first two principal components of the codes."""
        codes = self._asked().codes().astype(np.float64)
        centred = codes - codes.mean(0)
        _, vectors = np.linalg.eigh(centred.T @ centred)
        return centred @ vectors[:, [-1, -2]]

    def points(self, result: str | None) -> bytes:
        """Columns for the map: where a result has put them, or principal components."""
        index = self._asked()
        places = self._flat if result is None else self._placed(result)
        columns = [places[:, 0], places[:, 1], self._columns["label_index"], self._columns["predicted"], index.ids]
        return np.stack([np.asarray(column, np.float32) for column in columns]).tobytes()

    def _placed(self, key: str) -> np.ndarray[Any, Any]:
        path = self.jobs.file(key, "result.npz")
        if path is None:
            raise NotThere("there is no such result; run it again")
        with np.load(path, allow_pickle=False) as saved:
            values = saved["values"]
        if values.shape != (len(self._asked().ids), 2):
            raise OptionError("this result places no pictures in the plane; run one that does")
        return np.asarray(values, np.float64)

    def _row(self, place: int) -> int:
        if place not in self._rows:
            raise NotThere(f"the index has no picture {place}")
        return self._rows[place]

    @cached_property
    def _rows(self) -> dict[int, int]:
        """Picture to its place among the readable ones."""
        return {int(number): row for row, number in enumerate(self._asked().ids)}

    def thumbnail(self, place: int) -> bytes:
        """A small WebP."""
        self._row(place)
        table = self._asked().pictures(columns=["thumbnail"], where=f"id = {int(place)}")
        return bytes(table.column("thumbnail")[0].as_py())

    def indexed(self, place: int) -> dict[str, Any]:
        """One picture of the index and those nearest to it."""
        index, row = self._asked(), self._row(place)
        code = index.codes()[row : row + 1]
        ids, distances = index.nearest(code, NEIGHBOURS + 1)
        near = [
            {"id": int(i), "distance": float(d), **self._short(self._row(int(i)))}
            for i, d in zip(ids[0], distances[0], strict=True) if int(i) != place
        ][:NEIGHBOURS]  # fmt: skip
        return {"id": place, **self._short(row), "neighbours": near}

    def rows(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """What is known of several pictures."""
        found = [(place, self._row(place)) for place in places]
        return [{"id": place, "path": str(self._columns["path"][row]), **self._short(row)} for place, row in found]

    def _short(self, row: int) -> dict[str, Any]:
        columns = self._columns
        return {
            "title": Path(str(columns["path"][row])).name, "label": columns["label"][row],
            "predicted": self.network.label(int(columns["predicted"][row])),
            "probability": float(columns["probability"][row]), "correct": columns["correct"][row],
        }  # fmt: skip

    def open_indexed(self, place: int) -> dict[str, Any]:
        """Open one of them."""
        row = self._row(place)
        image = self._asked().image(place)
        return self.said(self.pictures.add(image, Path(str(self._columns["path"][row])).stem))

    # ---- studies with a person

    def begin_study(self, *, kind: studies.Kind, limit: int, subject: str, method: str, seed: int) -> studies.Sitting:
        """Begin a sitting; pictures to label come from the index, those to guess are the open ones or its."""
        with self.live.alone:
            if kind == "label":
                found = studies.label_sitting(self.network, self._asked(), limit=limit, subject=subject, seed=seed)
                return self.studies.begin(found)
            pictures = self._to_guess(limit, seed)
            found = studies.predict_sitting(
                self.network, pictures, limit=limit, subject=subject, method=method, seed=seed
            )
            return self.studies.begin(found)

    def _to_guess(self, limit: int, seed: int) -> list[tuple[str, Tensor]]:
        if self.index is None:
            return [(self.pictures.title(name), self.pictures.image(name)) for name in self.pictures.titles]
        places = random.Random(seed).sample([int(i) for i in self.index.ids], min(limit, len(self.index)))
        return [(str(place), self.index.prepared(place)) for place in places]

    def sitting(self, name: str) -> studies.Sitting:
        """One that was begun."""
        found = self.studies.get(name)
        if found is None:
            raise NotThere("there is no such sitting any more; begin another")
        return found

    def study_picture(self, name: str, number: int) -> bytes:
        """A PNG of what is shown at the open question."""
        sitting = self.sitting(name)
        if number != len(sitting.answers) or number >= len(sitting.study.questions):
            raise NotThere(f"question {number} is not the one that is open")
        with self.live.alone:
            return png(to_uint8(sitting.show(sitting.study.questions[number])))

    def prepared(self, place: int) -> bytes:
        """A PNG of a scanned picture as the network saw it."""
        self._row(place)
        return png(to_uint8(self._asked().prepared(place)))

    def bokeh(self) -> Path | None:
        """Where the installed Bokeh keeps its browser side; None where it is not installed."""
        spec = importlib.util.find_spec("bokeh")
        if spec is None or not spec.submodule_search_locations:
            return None
        folder = Path(next(iter(spec.submodule_search_locations))) / "server" / "static" / "js"
        return folder if folder.is_dir() else None
