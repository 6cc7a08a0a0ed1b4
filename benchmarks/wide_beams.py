"""Benchmark of wide beams in a catalogue against transformers' constrained beams.

    python benchmarks/wide_beams.py [--beams N] [--entries N] [--profile fp32] [--json]

The model has the shape of GPT-2 124M with random weights, whose speed is that of trained ones. Most
words of the list are one token, as in GPT-2's own vocabulary. An answer is all hypotheses of one
prompt, each an entry of the list with its score. gpt2flow answers through gRPC from another
process; transformers runs in this one, with a dictionary of all prefixes as its
`prefix_allowed_tokens_fn`. Both take turns on each prompt, with all cores, so that only their ratio
counts. Every prompt is new, so that no prefix cache helps.
"""

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Final

import torch
import typer
from serving import HELD_OUT
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

from gpt2flow.cli.processes import server
from gpt2flow.client import BeamSearch, Client, Options, StoredChoices
from gpt2flow.export import Profile, export_bundle

LIST: Final = "articles"
EOS: Final = 0
SECONDS: Final = 600.0
# Scores that differ by less may stand in either order.
TOLERANCE: Final = 1e-3
TOP: Final = 10

_MAKERS: Final = ("Arden", "Bolt", "Corvo", "Dahl", "Elm", "Fjord", "Gale", "Hazel", "Ivo", "Juno")
_KINDS: Final = ("small", "large", "slim", "wide", "light", "sturdy", "folding", "wooden", "steel")
_COLOURS: Final = ("red", "blue", "green", "black", "white", "grey", "brown")
_THINGS: Final = ("umbrella", "lamp", "desk", "chair", "kettle", "phone", "cable", "bottle", "case")

Answer = list[tuple[tuple[int, ...], float]]
"""Token ids and score of each hypothesis, best first."""


@dataclass(frozen=True)
class Comparison:
    """Figures of one run, with times in milliseconds.

    Attributes:
        beams: Number of beams, all of which are returned.
        entries: Entries of the list.
        longest: Tokens of the longest entry with its end.
        prompt_tokens: Tokens of a prompt.
        profile: Profile of the bundle.
        layers: Layers of the model.
        gpt2flow: Median time of an answer.
        transformers: Median time of an answer.
        ratio: The former by the latter.
        answers: Number of answers.
        same_order: Answers with the same entries in the same order, up to equal scores.
        same_top: Mean share of the ten best entries that both have.
        largest_difference: Largest difference of the scores of one rank.
    """

    beams: int
    entries: int
    longest: int
    prompt_tokens: int
    profile: str
    layers: int
    gpt2flow: float
    transformers: float
    ratio: float
    answers: int
    same_order: int
    same_top: float
    largest_difference: float


def make_entries(count: int) -> list[str]:
    """Return different names of articles, in random order."""
    rng = random.Random(1)
    names = set[str]()
    while len(names) < count:
        words = [rng.choice(each) for each in (_MAKERS, _KINDS, _COLOURS, _THINGS)]
        names.add(f"{' '.join(words)} {rng.randint(1, 99)}")
    return rng.sample(sorted(names), count)


def make_checkpoint(directory: Path, entries: Sequence[str], layers: int) -> GPT2LMHeadModel:
    """Write and return a random GPT-2, whose vocabulary has whole words."""
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(n_layer=layers, bos_token_id=EOS, eos_token_id=EOS)).eval()
    # Without this the tokens of random weights are almost equally likely, and scores tie.
    model.transformer.wte.weight.data *= 4
    model.save_pretrained(directory)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(entries, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    return model


class TransformersSearch:
    """Constrained beam search of transformers."""

    def __init__(
        self, model: GPT2LMHeadModel, entries: Sequence[Sequence[int]], beams: int
    ) -> None:
        self._model = model
        self._beams = beams
        self._longest = 1 + max(map(len, entries))
        following: dict[tuple[int, ...], set[int]] = {}
        for sequence in entries:
            ids = (*sequence, EOS)
            for at, token_id in enumerate(ids):
                following.setdefault(ids[:at], set()).add(token_id)
        self._following = {prefix: list(each) for prefix, each in following.items()}

    def run(self, prompt: Sequence[int]) -> Answer:
        """Return all hypotheses of a prompt, best first."""
        start, ended = len(prompt), [EOS]

        def allowed(_batch: int, tokens: torch.Tensor) -> list[int]:
            # A beam without probability, of which the first steps have many, is at no entry.
            return self._following.get(tuple(tokens[start:].tolist()), ended)

        with torch.inference_mode():
            output = self._model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, start, dtype=torch.int64),
                do_sample=False,
                num_beams=self._beams,
                num_return_sequences=self._beams,
                length_penalty=0.0,
                max_new_tokens=self._longest,
                pad_token_id=EOS,
                prefix_allowed_tokens_fn=allowed,
                return_dict_in_generate=True,
                output_scores=True,
            )
        rows = output.sequences[:, start:].tolist()
        tokens = [tuple(row[: row.index(EOS) + 1]) for row in rows]
        return list(zip(tokens, output.sequences_scores.tolist(), strict=True))


def timed(run: Callable[[list[int]], Answer], prompt: list[int]) -> tuple[float, Answer]:
    """Return the milliseconds of an answer, and the answer."""
    started = perf_counter()
    answer = run(prompt)
    return (perf_counter() - started) * 1000, answer


def same_order(one: Answer, other: Answer) -> bool:
    """Return whether two answers rank the same entries alike."""
    scores = dict(other)
    return len(one) == len(other) and all(
        tokens in scores and abs(scores[tokens] - score) <= TOLERANCE
        for (tokens, _), (_, score) in zip(one, other, strict=True)
    )


def compare(
    address: str, model: GPT2LMHeadModel, entries: list[str], figures: dict[str, Any], repeats: int
) -> Comparison:
    """Measure both on the same prompts.

    Args:
        address: Address of the server.
        model: The same model in transformers.
        entries: Entries of the list.
        figures: Figures of the run that are known already.
        repeats: Answers of each, after one to warm up.
    """
    beams = figures["beams"]
    options = Options(
        BeamSearch(beams, length_penalty=0.0, num_return_sequences=beams),
        constraint=StoredChoices(LIST),
        token_ids=True,
    )
    with Client(address, timeout=SECONDS, retry=None) as client:
        sequences = [[token.id for token in client.tokenize(entry)] for entry in entries]
        search = TransformersSearch(model, sequences, beams)

        def answer(prompt: list[int]) -> Answer:
            found = client.generate(prompt, options).candidates
            return [(each.token_ids, each.beam_score) for each in found]

        lines = HELD_OUT.read_text(encoding="utf-8").splitlines()
        text = " ".join(json.loads(line)["message"] for line in lines)
        ids = [token.id for token in client.tokenize(text)]
        size = figures["prompt_tokens"]
        prompts = [ids[start : start + size] for start in range(0, size * (repeats + 1), size)]
        pairs = [(timed(answer, each), timed(search.run, each)) for each in prompts][1:]
    ours = statistics.median(one for (one, _), _ in pairs)
    theirs = statistics.median(other for _, (other, _) in pairs)
    answers = [(one, other) for (_, one), (_, other) in pairs]
    return Comparison(
        **figures,
        entries=len(entries),
        longest=1 + max(map(len, sequences)),
        gpt2flow=ours,
        transformers=theirs,
        ratio=ours / theirs,
        answers=len(answers),
        same_order=sum(same_order(*pair) for pair in answers),
        same_top=statistics.mean(_common_top(*pair) for pair in answers),
        largest_difference=max(
            abs(mine - score)
            for one, other in answers
            for (_, mine), (_, score) in zip(one, other, strict=False)
        ),
    )


def _common_top(one: Answer, other: Answer) -> float:
    best = [{tokens for tokens, _ in islice(answer, TOP)} for answer in (one, other)]
    return len(set.intersection(*best)) / len(best[1])


def main(
    *,
    beams: Annotated[int, typer.Option(min=2, help="Beams, all of which are returned.")] = 256,
    entries: Annotated[int, typer.Option(min=1, max=100_000, help="Entries of the list.")] = 10_000,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens per prompt.")] = 32,
    repeats: Annotated[int, typer.Option(min=1, help="Answers of each, after a warm-up.")] = 5,
    profile: Annotated[Profile, typer.Option(help="Profile of the bundle.")] = Profile.FP32,
    layers: Annotated[int, typer.Option(min=1, help="Layers; GPT-2 124M has 12.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Compare an answer of wide beams with transformers."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        names = make_entries(entries)
        (directory / "list.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        model = make_checkpoint(directory / "checkpoint", names, layers)
        bundle = directory / "bundle"
        export_bundle(
            directory / "checkpoint", bundle, profile=profile, eval_text=HELD_OUT, force=True
        )
        # A slot holds a prompt and an entry, not the whole context: memory is for many of them.
        length = prompt_tokens + 64
        options = [
            "--max-sequences",
            str(beams),
            "--context-length",
            str(length),
            "--choices",
            f"{LIST}={directory / 'list.txt'}",
        ]
        figures = {
            "beams": beams,
            "prompt_tokens": prompt_tokens,
            "profile": profile.value,
            "layers": layers,
        }
        with server(bundle, directory, *options) as address:
            found = compare(address, model, names, figures, repeats)
    if as_json:
        json.dump(asdict(found), sys.stdout, indent=1)
        return
    print(
        "| beams | entries | gpt2flow (ms) | transformers (ms) | ratio | same order |\n"
        "|---|---|---|---|---|---|\n"
        f"| {found.beams} | {found.entries} | {found.gpt2flow:.0f} | {found.transformers:.0f} "
        f"| {found.ratio:.3f} | {found.same_order} of {found.answers} |"
    )


if __name__ == "__main__":
    typer.run(main)
