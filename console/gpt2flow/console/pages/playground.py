"""Page to try the model: text, probabilities, beams, grammars."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gpt2flow.client import (
    AsyncClient,
    BeamSearch,
    ClientError,
    Generation,
    JsonSchema,
    Lark,
    Options,
    Regex,
    Sampling,
    SettingsError,
)
from gpt2flow.client.results import TokenLogprob
from gpt2flow.console.pages.site import Site

_SECONDS: Final = 30.0
_TOP: Final = 5
_MAX_BEAMS: Final = 64
_DEFAULTS: Final[Mapping[str, str]] = {
    "prompt": "",
    "max_new_tokens": "32",
    "temperature": "0",
    "num_beams": "1",
    "constraint": "none",
    "grammar": "",
}
CONSTRAINTS: Final = ("none", "json_schema", "regex", "lark")


class FormError(ValueError):
    """Field of the form that is invalid; the message names it."""


@dataclass
class Branch:
    """Tokens that beams share, and what follows them.

    Attributes:
        tokens: Tokens in a row without a fork.
        ends: Scores of the beams that end here.
        branches: What follows, likeliest first.
    """

    tokens: list[TokenLogprob] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    branches: list["Branch"] = field(default_factory=list)

    @property
    def text(self) -> str:
        """Text of the tokens."""
        return b"".join(token.token for token in self.tokens).decode("utf-8", "replace")


def beam_tree(beams: Sequence[tuple[Sequence[TokenLogprob], float]]) -> Branch:
    """Return the tree of some beams.

    Args:
        beams: Tokens and score of each beam, best first.
    """
    root = Branch()
    _grow(root, [(list(tokens), score) for tokens, score in beams])
    return root


def _grow(branch: Branch, beams: list[tuple[list[TokenLogprob], float]]) -> None:
    while True:
        branch.ends += [score for tokens, score in beams if not tokens]
        going = [(tokens, score) for tokens, score in beams if tokens]
        groups: dict[int, list[tuple[list[TokenLogprob], float]]] = {}
        for tokens, score in going:
            groups.setdefault(tokens[0].token_id, []).append((tokens, score))
        if len(groups) != 1 or branch.ends:
            break
        branch.tokens.append(going[0][0][0])
        beams = [(tokens[1:], score) for tokens, score in going]
    for group in groups.values():
        child = Branch()
        branch.branches.append(child)
        _grow(child, group)


def routes(site: Site) -> list[Route]:
    """Return the routes of the page."""

    async def show(request: Request) -> Response:
        visit = site.person_visit(request)
        return site.page(visit, "playground.html", _values(_DEFAULTS, None, None))

    async def generate(request: Request) -> Response:
        visit = site.visit(request)
        fields = {**_DEFAULTS, **await site.form(visit)}
        try:
            generation = await _generate(site, fields["prompt"], _options(fields))
        except (FormError, SettingsError, ClientError) as error:
            values = _values(fields, None, str(error))
            return site.page(visit, "playground.html", values, status=422)
        return site.page(visit, "playground.html", _values(fields, generation, None))

    async def check_grammar(request: Request) -> Response:
        visit = site.visit(request)
        fields = {**_DEFAULTS, **await site.form(visit)}
        error = None
        try:
            options = Options(constraint=_constraint(fields), max_new_tokens=1)
            if options.constraint is not None:
                await _generate(site, " ", options)
        except (FormError, SettingsError, ClientError) as caught:
            error = str(caught)
        values = {"error": error, "is_empty": fields["constraint"] == "none"}
        return site.page(visit, "grammar_check.html", values)

    return [
        Route("/playground", show),
        Route("/playground", generate, methods=["POST"]),
        Route("/playground/grammar", check_grammar, methods=["POST"]),
    ]


async def _generate(site: Site, prompt: str, options: Options) -> Generation:
    config = site.config
    async with AsyncClient(config.server, timeout=_SECONDS, security=config.security) as client:
        return await client.generate(prompt, options)


def _values(
    fields: Mapping[str, str], generation: Generation | None, error: str | None
) -> dict[str, Any]:
    """Return what the page shows."""
    beams = generation.candidates if generation is not None else ()
    tree = None
    if len(beams) > 1:
        tree = beam_tree([(beam.logprobs, beam.beam_score) for beam in beams])
    return {
        "fields": fields,
        "constraints": CONSTRAINTS,
        "generation": generation,
        "tokens": [_shown(token) for token in beams[0].logprobs] if beams else [],
        "tree": tree,
        "error": error,
    }


def _shown(token: TokenLogprob) -> dict[str, Any]:
    """Return a token with its likeliest alternatives, for the page."""
    return {
        "text": _text(token),
        "probability": _probability(token),
        "top": [[_text(each), _probability(each)] for each in token.top],
    }


def _text(token: TokenLogprob) -> str:
    return token.token.decode("utf-8", "replace")


def _probability(token: TokenLogprob) -> float | None:
    return None if token.logprob is None else round(math.exp(token.logprob), 4)


def _options(fields: Mapping[str, str]) -> Options:
    """Return the options of a form.

    Raises:
        FormError: A field is invalid.
    """
    beams = _number(fields, "num_beams", 1, _MAX_BEAMS)
    temperature = _number(fields, "temperature", 0, 100, kind=float)
    decoding = (
        BeamSearch(num_beams=int(beams), num_return_sequences=int(beams))
        if beams > 1
        else Sampling(temperature=temperature)
    )
    return Options(
        decoding=decoding,
        max_new_tokens=int(_number(fields, "max_new_tokens", 1, 100_000)),
        constraint=_constraint(fields),
        logprobs=True,
        top_logprobs=_TOP,
        token_ids=True,
    )


def _constraint(fields: Mapping[str, str]) -> JsonSchema | Regex | Lark | None:
    kind, grammar = fields["constraint"], fields["grammar"]
    match kind:
        case "none":
            return None
        case "json_schema":
            return JsonSchema(grammar)
        case "regex":
            return Regex(grammar)
        case "lark":
            return Lark(grammar)
        case _:
            raise FormError(f"constraint is {kind!r:.40}, must be one of {', '.join(CONSTRAINTS)}")


def _number(
    fields: Mapping[str, str], name: str, least: float, most: float, *, kind: type[float] = int
) -> float:
    text = fields[name].strip()
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise FormError(f"{name} is {text!r:.40}, must be a number from {least} to {most}")
    return value
