"""Benchmark on ABCD: labels, documents, floors, scores, and a whole run."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from abcd import CONFIG, main, summarize, write_corpus
from abcd_task.dialogues import (
    BUTTONS,
    Decision,
    Dialogue,
    button_of,
    decisions,
    fit_floor,
    pressed,
    read_dialogues,
)
from abcd_task.documents import (
    VIEWS,
    PromptWriter,
    View,
    find_names,
    sample_view,
    training_documents,
)
from abcd_task.scoring import ButtonScorer, choose
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel
from typer import Typer
from typer.testing import CliRunner

from gpt2flow.agent.flows.prompt import ACT, END, RESULT, Choice
from gpt2flow.training.errors import CorpusError
from gpt2flow.training.text.encoding import encode
from gpt2flow.training.text.vocabulary import train_vocabulary

SUBJECTS = {
    "shirt": "how do I wash a shirt",
    "jeans": "do jeans shrink",
    "boots": "are boots waterproof",
}
TEXT = """SYS:Hi! How can I help you?

USR:Where is the $40 refund for order 9287191760? My ID is 6T4FLVGV4B

SYS:May I have your name?

USR:Crystal Minh, crystalm77@email.com

ACT:Account has been pulled up for Crystal Minh.

ACT:Purchase validation in progress ...

SYS:One moment

ACT:Order has been updated with Refund Status.

USR:Thanks!

<|endoftext|>"""
TINY = "vocabulary_size=300 context_length=128 layers=1 width=16 heads=1 batch_tokens=512 epochs=1"


def question(subject: str) -> str:
    """Return a dialogue on a subject, whose second button depends on it."""
    return (
        f"USR:{SUBJECTS[subject]}\n\nACT:Searching the FAQ pages ...\n\n"
        f"ACT:System Action: search {subject}\n\nSYS:Like this.\n\n<|endoftext|>"
    )


@pytest.fixture
def dialogues(tmp_path: Path) -> list[Dialogue]:
    """Return three dialogues like the first, and two questions on each subject."""
    path = tmp_path / "dialogues.txt"
    path.write_text(TEXT * 3 + "".join(map(question, SUBJECTS)) * 2, encoding="utf-8")
    return read_dialogues(path)


@pytest.fixture
def writer(dialogues: list[Dialogue]) -> PromptWriter:
    return PromptWriter(find_names(dialogues))


def test_every_button_is_read_from_what_it_prints() -> None:
    sentences = {
        "pull_up_account": "Account has been pulled up for Chloe Zhang.",
        "update_account": "Account has been updated with silver.",
        "verify_identity": "Identity verification in progess ...",
        "notify_team": "The has been notified.",
        "subscription_status": "Querying the system for subscription status ...",
        "ask_the_oracle": "Querying the system for an answer ...",
        "search_membership": "System Action: search membership",
        "membership": "Membership level of gold has been noted.",
        "try_again": "Agent is looking for solutions ...",
    }
    assert {name: button_of(text) for name, text in sentences.items()} == {
        name: name for name in sentences
    }
    assert button_of("Nothing happened.") is None
    assert len(BUTTONS) == 28


def test_a_dialogue_has_its_buttons_and_each_decision_the_lines_before(
    dialogues: list[Dialogue],
) -> None:
    assert len(dialogues) == 9
    first = list(decisions(dialogues[:1]))
    assert [each.button for each in first] == [
        "pull_up_account",
        "validate_purchase",
        "update_order",
    ]
    assert [len(each.before) for each in first] == [4, 5, 7]
    assert first[1].earlier == ["pull_up_account"]
    assert first[1].later == ("update_order",)


@pytest.mark.parametrize(
    "text, message",
    [
        ("USR:hi\nBOT:hello", r":2: 'BOT:hello' starts with none of SYS:, USR:, ACT:"),
        ("USR:hi\n<|endoftext|>ACT:It rained.", r":2: 'It rained.' is printed by none"),
        ("USR:hi", r"no action found, expected lines that start with ACT:"),
    ],
)
def test_an_invalid_file_is_refused_with_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError, match=message):
        read_dialogues(path)


def test_a_prompt_has_state_problem_and_latest_lines_with_marks_for_values(
    dialogues: list[Dialogue], writer: PromptWriter
) -> None:
    decision = list(decisions(dialogues))[1]
    assert writer.document(decision, ahead=1) == (
        "<|state|>pull_up_account"
        "<|past|>where AMOUNT refund order ORDER ID NAME EMAIL"
        "<|event|>how help<|user|>where AMOUNT refund order ORDER ID"
        "<|event|>may name<|user|>NAME EMAIL<|past|>pull_up_account"
        '<|act|>{"action":"validate_purchase"}<|result|>ok'
        '<|act|>{"action":"update_order"}<|result|>ok<|act|>{"action":"done"}<|endoftext|>'
    )
    assert writer.document(decision, ahead=0).endswith(
        '{"action":"validate_purchase"}<|endoftext|>'
    )


def test_a_view_limits_lines_and_words_and_leaves_some_out(
    dialogues: list[Dialogue], writer: PromptWriter
) -> None:
    before = list(decisions(dialogues))[2].before
    assert writer.prompt(before, View(problem_words=1, recent_lines=2, recent_words=9)) == (
        "<|state|>pull_up_account validate_purchase<|past|>where"
        "<|past|>validate_purchase<|event|>one moment<|act|>"
    )
    rng = random.Random(1)
    views = {writer.prompt(before, sample_view(rng), rng) for _ in range(20)}
    assert len(views) > 10
    assert all(
        view.startswith("<|state|>pull_up_account validate_purchase<|past|>") for view in views
    )


def test_no_prompt_contains_its_own_button(dialogues: list[Dialogue]) -> None:
    """The lines after a decision must not leak into its prompt."""
    writer = PromptWriter(frozenset())
    for decision in decisions(dialogues):
        prompt = writer.prompt(decision.before, VIEWS[2])
        assert decision.button not in prompt
        assert not any(button in prompt for button in decision.later)


def test_training_counts_the_buttons_of_every_document(
    dialogues: list[Dialogue], writer: PromptWriter
) -> None:
    documents = list(
        training_documents(dialogues, writer, random.Random(1), windows=3, ahead=1, procedures=2)
    )
    count = len(list(decisions(dialogues)))
    assert len(documents) == 3 * count + 2 * len(dialogues)
    assert sum(text.startswith("<|state|>procedure<|past|>") for text in documents) == 18
    assert all(text.endswith(END) for text in documents)
    tokenizer = train_vocabulary(documents, 300)
    texts = [text.removesuffix(END) for text in documents]
    encoded = encode(texts, tokenizer)
    learned = tokenizer.decode(encoded.ids[encoded.target_mask].tolist(), skip_special_tokens=False)
    answers = [part.partition(RESULT)[0] for text in documents for part in text.split(ACT)[1:]]
    assert learned.replace(RESULT, "").replace(END, "") == "".join(answers).replace(END, "")


def test_the_validation_set_shares_no_dialogue_with_the_training_set(
    tmp_path: Path, dialogues: list[Dialogue], writer: PromptWriter
) -> None:
    for number, dialogue in enumerate(dialogues):
        # A word of its own for each, made of letters.
        first = dialogue[0]
        dialogues[number] = (type(first)("USR", f"code{'abcdefghi'[number]}"), *dialogue)
    views = {"windows": 2, "ahead": 0, "procedures": 1}
    config = CONFIG.changed(valid_share=0.3)
    train, valid = (
        {f"code{letter}" for letter in "abcdefghi" if f"code{letter}" in path.read_text()}
        for path in write_corpus(tmp_path, dialogues, writer, config, views)
    )
    assert len(valid) == 3
    assert len(train) == 6
    assert not train & valid


def test_a_floor_chooses_the_commonest_button_after_the_latest_ones(
    dialogues: list[Dialogue],
) -> None:
    known = list(decisions(dialogues))
    second = known[1]
    assert fit_floor(known, 0)(second) == "search_faq"
    assert fit_floor(known, 1)(second) == "validate_purchase"
    assert fit_floor(known, 2)(known[2]) == "update_order"
    unseen = Decision((*dialogues[3][:2], *dialogues[0][4:5]), "validate_purchase")
    assert pressed(unseen.before) == ["search_faq", "pull_up_account"]
    assert fit_floor(known, 2)(unseen) == "validate_purchase"


def test_figures_are_shares_of_actions_and_means_over_buttons(dialogues: list[Dialogue]) -> None:
    known = list(decisions(dialogues))
    predicted = ["search_faq" if each.button == "search_faq" else "membership" for each in known]
    figures = summarize(known, known, predicted)
    assert figures["actions"] == 21
    assert figures["micro"]["rate"] == pytest.approx(6 / 21)
    assert figures["micro"]["low"] < 6 / 21 < figures["micro"]["high"]
    assert figures["macro"] == pytest.approx(1 / 7)
    assert figures["by_button"]["search_faq"] == {"actions": 6, "accuracy": 1.0}
    assert figures["floors"]["commonest"]["micro"]["rate"] == pytest.approx(6 / 21)
    assert figures["floors"]["after_previous"]["micro"]["rate"] == pytest.approx(14 / 21)


@pytest.fixture
def scorer(dialogues: list[Dialogue], writer: PromptWriter) -> ButtonScorer:
    """Return a scorer with random weights."""
    from gpt2flow.training.model.model import new_model

    tokenizer = train_vocabulary((writer.document(d, 0) for d in decisions(dialogues)), 280)
    config = CONFIG.changed(vocabulary_size=280, context_length=512, layers=2, width=16, heads=2)
    torch.manual_seed(1)
    model: GPT2LMHeadModel = new_model(config, 0).eval()
    model.set_attn_implementation("eager")
    return ButtonScorer(tokenizer, model)


def naive(tokenizer: Tokenizer, model: GPT2LMHeadModel, prompt: str, text: str) -> float:
    """Return a text's log-likelihood after a prompt, without a cache."""
    head, tail = tokenizer.encode(prompt).ids, tokenizer.encode(text).ids
    with torch.inference_mode():
        logits = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1]
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(tail)[:, None]).sum())


def test_scores_are_those_of_whole_texts_run_without_a_cache(
    scorer: ButtonScorer, dialogues: list[Dialogue], writer: PromptWriter
) -> None:
    prompts = [writer.prompt(each.before) for each in decisions(dialogues[:1])]
    for prompt in prompts:
        expected = [
            naive(scorer._tokenizer, scorer._model, prompt, Choice(button).text)
            for button in BUTTONS
        ]
        assert scorer.log_likelihoods(prompt) == pytest.approx(expected, abs=1e-3)
    total = np.sum([scorer.log_likelihoods(prompt) for prompt in prompts], axis=0)
    assert choose([scorer], prompts) == BUTTONS[int(total.argmax())]


def test_a_prompt_beyond_the_context_loses_its_beginning(scorer: ButtonScorer) -> None:
    long = scorer.log_likelihoods("refund " * 700 + ACT)
    assert long == pytest.approx(scorer.log_likelihoods("refund " * 800 + ACT))


@pytest.mark.process
def test_a_run_trains_and_reports_its_figures(tmp_path: Path) -> None:
    train, test = tmp_path / "train.txt", tmp_path / "test.txt"
    train.write_text(TEXT * 5 + "".join(map(question, SUBJECTS)) * 5, encoding="utf-8")
    test.write_text(TEXT + question("boots"), encoding="utf-8")
    app = Typer()
    app.command()(main)
    settings = [part for setting in TINY.split() for part in ("--set", setting)]
    files = ["--train", str(train), "--test", str(test), "--json"]
    out = tmp_path / "checkpoint"
    arguments = [
        *files,
        *settings,
        "--limit",
        "20",
        "--windows",
        "2",
        "--scratch",
        "--out",
        str(out),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    figures = json.loads(result.stdout)
    assert figures["actions"] == 5
    assert set(figures["floors"]) == {"commonest", "after_previous", "after_previous_two"}
    assert figures["training"]["config"]["layers"] == 1
    assert (out / "model.safetensors").is_file()
    again = CliRunner().invoke(app, [*files, "--limit", "20", "--checkpoint", str(out)])
    assert json.loads(again.stdout)["micro"] == figures["micro"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--set", "layers"], "error: --set 'layers' is not of the form name=value"),
        (["--set", "layers=0"], "error: field layers: Input should be greater than 0"),
        (["--checkpoint", "nowhere"], "error: nowhere: no checkpoint to start from"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    path = tmp_path / "dialogues.txt"
    path.write_text(TEXT, encoding="utf-8")
    app = Typer()
    app.command()(main)
    files = ["--train", str(path), "--test", str(path)]
    result = CliRunner().invoke(app, [*files, *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(message)
    assert len(result.stderr.splitlines()) == 1
