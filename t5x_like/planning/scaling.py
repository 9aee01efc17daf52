"""How a budget of training FLOPs is best divided between the size of a model and the tokens it sees.

    for law in laws("chinchilla"):
        law.optimum(1e21)      # (parameters, tokens)

Laws are facts about the models, data and optimizers that they were fitted to, decoder language models all of them; for
another kind of model they are a place to begin. C = 6 N D throughout: N parameters, D tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Literal, Protocol

Family = Literal["chinchilla", "kaplan", "all"]
PF_DAY = 1e15 * 86400
"""FLOPs of a day at 10^15 a second, Kaplan's unit."""


class Law(Protocol):
    """Attributes: `name`, `source`, and whether N counts `embeddings`."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def embeddings(self) -> bool: ...

    def optimum(self, flops: float) -> tuple[float, float]:
        """(parameters, tokens) of the lowest loss for this budget."""
        ...

    def loss(self, flops: float) -> float | None:
        """Of the optimum, in nats a token of the law's own data; None where the law has none."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """N = parameters * (C / flops) ** exponent through one published point."""

    name: str
    source: str
    exponent: float
    parameters: float
    flops: float
    embeddings: bool = True

    def optimum(self, flops: float) -> tuple[float, float]:
        n = self.parameters * (flops / self.flops) ** self.exponent
        return n, flops / 6 / n

    def loss(self, flops: float) -> float | None:
        return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surface:
    """L(N, D) = e + a / N**alpha + b / D**beta, minimised where 6 N D = C (Hoffmann et al. 2022, equation 4)."""

    name: str
    source: str
    e: float
    a: float
    b: float
    alpha: float
    beta: float
    embeddings: bool = True

    def optimum(self, flops: float) -> tuple[float, float]:
        g = (self.alpha * self.a / (self.beta * self.b)) ** (1 / (self.alpha + self.beta))
        n = g * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return n, flops / 6 / n

    def loss(self, flops: float) -> float | None:
        n, d = self.optimum(flops)
        return self.e + self.a / n**self.alpha + self.b / d**self.beta


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kaplan:
    """N = 1.3e9 (C_min)^0.73 without embeddings, L = (3.1e8 / C_min)^0.050, C_min in PF-days: what training at a
    batch far below the critical one would cost. At the critical batch it is half of C (their equation 5.5), which
    is how Hoffmann et al. read it too (appendix D.4: 4.68e9 parameters at 1e21 FLOPs)."""

    name: str = "kaplan"
    source: str = "Kaplan et al. 2020, arXiv:2001.08361, tables 5 and 6"
    embeddings: bool = False

    def optimum(self, flops: float) -> tuple[float, float]:
        n = 1.3e9 * (flops / 2 / PF_DAY) ** 0.73
        return n, flops / 6 / n

    def loss(self, flops: float) -> float | None:
        return (3.1e8 / (flops / 2 / PF_DAY)) ** 0.050


CHINCHILLA: tuple[Law, ...] = (
    PowerLaw(
        name="chinchilla 1, envelope of curves",
        source="Hoffmann et al. 2022, arXiv:2203.15556, table 2 (a = 0.50) through table 3's row of 1e12",
        exponent=0.50, parameters=1e12, flops=1.27e26,
    ),
    PowerLaw(
        name="chinchilla 2, profiles of equal FLOPs",
        source="the same, table 2 (a = 0.49) through table A3's row of 1e12",
        exponent=0.49, parameters=1e12, flops=1.59e26,
    ),
    Surface(
        name="chinchilla 3, fitted surface",
        source="the same, equation 10 unrounded, as in a comment of the TeX source; it reproduces table A3",
        e=math.exp(0.5267228), a=math.exp(6.0073404), b=math.exp(6.0179186), alpha=0.33917084, beta=0.2849083,
    ),
    Surface(
        name="chinchilla 3, as printed",
        source="the same, equation 10; two digits of the exponents are too few: table A3 does not follow from it",
        e=1.69, a=406.4, b=410.7, alpha=0.34, beta=0.28,
    ),
    Surface(
        name="chinchilla 3, fitted again",
        source="Besiroglu et al. 2024, arXiv:2404.10102: the optimizer of the first fit had stopped too early",
        e=1.8172, a=482.01, b=2085.43, alpha=0.3478, beta=0.3658,
    ),
)  # fmt: skip


def laws(family: Family) -> tuple[Law, ...]:
    """Those of a paper, or all."""
    kaplan: tuple[Law, ...] = (Kaplan(),)
    return {"chinchilla": CHINCHILLA, "kaplan": kaplan, "all": CHINCHILLA + kaplan}[family]


def nearest(parameters: float, models: Iterable[tuple[str, int]]) -> tuple[str, int]:
    """Of (name, parameters) the one whose size is nearest by ratio; of equals the first."""
    return min(models, key=lambda model: abs(math.log(model[1] / parameters)))


def shipped(embeddings: bool) -> list[tuple[str, int]]:
    """(configuration, parameters) of every shipped configuration of a published size; without `embeddings`, tables
    over the vocabulary and output layers over it are left out, as Kaplan et al. count."""
    from t5x_like import config

    found: dict[Any, tuple[str, int]] = {}
    for name in config.names():
        stem, _, function = name.partition(":")
        if function == "debug":
            continue
        model = config.load(name).model
        size = model.num_params() if embeddings else _without_vocabulary(model)
        found.setdefault(model, (stem if function == "config" else name, size))
    return list(found.values())


def _without_vocabulary(model: Any) -> int:
    """What is left of `num_params` when the part that grows with the vocabulary is taken away: it grows evenly."""
    row = _with_vocabulary(model, model.vocab_size + 1).num_params() - model.num_params()
    return model.num_params() - model.vocab_size * row


def _with_vocabulary(model: Any, size: int) -> Any:
    if any(field.name == "vocab_size" for field in dataclasses.fields(model)):
        return dataclasses.replace(model, vocab_size=size)
    return dataclasses.replace(model, encoder=_with_vocabulary(model.encoder, size))


def data(flops: float, family: Family) -> dict[str, Any]:
    """The answers of the laws, as plain data."""
    known = {True: shipped(True)}
    answers = []
    for law in laws(family):
        parameters, tokens = law.optimum(flops)
        if law.embeddings not in known:
            known[law.embeddings] = shipped(law.embeddings)
        name, size = nearest(parameters, known[law.embeddings])
        answers.append(
            {
                "law": law.name,
                "source": law.source,
                "counts_embeddings": law.embeddings,
                "parameters": parameters,
                "tokens": tokens,
                "loss": law.loss(flops),
                "nearest_config": name,
                "nearest_parameters": size,
            }
        )
    return {"flops": flops, "laws": answers}


def describe(found: dict[str, Any]) -> str:
    """`data` as it is printed."""
    lines = [
        f"{found['flops']:.3g} training FLOPs = 6 x parameters x tokens, at their best by laws of decoder models",
        "",
        f"{'law':<40}{'parameters':>12}{'tokens':>12}{'tokens each':>13}{'loss':>7}   nearest configuration",
    ]
    for law in found["laws"]:
        loss = "" if law["loss"] is None else f"{law['loss']:.2f}"
        lines.append(
            f"{law['law']:<40}{law['parameters']:>12.3g}{law['tokens']:>12.3g}"
            f"{law['tokens'] / law['parameters']:>13.3g}{loss:>7}   "
            f"{law['nearest_config']} ({law['nearest_parameters']:.3g})"
        )
    lines.append("")
    for law in found["laws"]:
        counted = "" if law["counts_embeddings"] else "; parameters without embeddings"
        lines.append(f"{law['law']}: {law['source']}{counted}")
    return "\n".join(lines)
