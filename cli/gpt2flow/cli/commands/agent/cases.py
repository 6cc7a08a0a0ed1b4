"""Commands for people who handle cases: inbox, show, assign, and decisions."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gpt2flow.cli.agent_options import Database, Flows
from gpt2flow.cli.commands.agent.case_page import print_case, print_inbox
from gpt2flow.cli.connection import with_options
from gpt2flow.cli.outcome import CommandError, Exit, needs_extra, reported
from gpt2flow.files.atomic import write_atomically

if TYPE_CHECKING:
    from gpt2flow.agent.cases.decisions import Desk
    from gpt2flow.agent.cases.inbox import CaseView
    from gpt2flow.agent.cases.people import Person

_AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,2})?")
CaseNumber = Annotated[str, typer.Argument(metavar="<case>", help="Number of the case, as C-7.")]
Seen = Annotated[
    str | None,
    typer.Option(
        help="Digest of the case that you decide on, as `show` prints it.",
        show_default="show the case, and ask",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the case as JSON.")]


@dataclass(frozen=True)
class DeskOptions:
    """Options of every command on cases."""

    database: Database = "gpt2flow.sqlite"
    flows: Flows = None


@dataclass(frozen=True)
class PersonOptions:
    """Options that identify the person who acts."""

    tokens: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of tokens, which names the people and what each may do.",
            envvar="GPT2FLOW_TOKENS",
        ),
    ] = None
    token_file: Annotated[
        Path | None,
        typer.Option(help="File of your own token.", envvar="GPT2FLOW_TOKEN_FILE"),
    ] = None

    def identify(self) -> "Person":
        """Return the person who acts.

        Raises:
            CommandError: A file is not named, or the token cannot be read.
        """
        from gpt2flow.agent.cases.people import identify
        from gpt2flow.agent.config import utc_now

        tokens = _required("--tokens", self.tokens)
        token_file = _required("--token-file", self.token_file)
        try:
            token = token_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"--token-file {token_file}: {error}", Exit.BAD_INPUT) from error
        return identify(tokens, token, utc_now())

    def check_assignee(self, name: str) -> None:
        """Check that an assignee may handle cases, or is the agent."""
        from gpt2flow.agent.cases.people import check_assignee
        from gpt2flow.agent.config import utc_now

        check_assignee(_required("--tokens", self.tokens), name, utc_now())


def _required(option: str, path: Path | None) -> Path:
    if path is None:
        raise CommandError(
            f"{option} is missing: it tells who acts; `gpt2flow token NAME --may approve` makes"
            " a token and its entry",
            Exit.BAD_INPUT,
        )
    return path


with_desk_options = with_options(DeskOptions, "desk_options")
with_person_options = with_options(PersonOptions, "person_options")


@with_desk_options
def inbox(
    assignee: Annotated[
        str | None,
        typer.Option(help="Only the cases of this person.", show_default="all people"),
    ] = None,
    all_statuses: Annotated[
        bool, typer.Option("--all", help="List decided, closed and expired cases too.")
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=1_000_000, help="Largest number of cases.", show_default="all"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cases as JSON.")] = False,
    *,
    desk_options: DeskOptions,
) -> None:
    """List the cases that wait for a person, most urgent first."""
    with _open_desk(desk_options) as desk:
        lines = desk.inbox(all_statuses=all_statuses, assignee=assignee, limit=limit)
    print_inbox(lines, as_json=as_json)


@with_desk_options
def show(
    case: CaseNumber,
    messages: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Number of messages to show, the latest; and of changes alike.",
            show_default="50",
        ),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show all messages and changes.")] = False,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="<dir>",
            help="Directory to save the case's pictures in, as C-7-1.png and so on.",
            show_default="not saved",
        ),
    ] = None,
    as_json: AsJson = False,
    *,
    desk_options: DeskOptions,
) -> None:
    """Show a case: order, conversation, proposal of the model, history, and digest."""
    if show_all and messages is not None:
        raise CommandError("--all and --messages exclude each other", Exit.BAD_INPUT)
    with _open_desk(desk_options) as desk:
        from gpt2flow.agent.cases.inbox import SHOWN

        view = desk.show(case, None if show_all else messages or SHOWN)
        contents = [] if pictures is None else desk.pictures(case)
    saved = [] if pictures is None else _save_pictures(view, contents, pictures)
    print_case(view, as_json=as_json)
    if not as_json and pictures is not None:
        typer.echo("\n".join(["", *map(str, saved)]) if saved else f"\n{view.case} has no pictures")


@with_desk_options
@with_person_options
def assign(
    case: CaseNumber,
    to: Annotated[
        str | None,
        typer.Option(
            help="Name of the person who takes the case; `agent` gives a conversation back.",
            show_default="yourself",
        ),
    ] = None,
    as_json: AsJson = False,
    *,
    desk_options: DeskOptions,
    person_options: PersonOptions,
) -> None:
    """Take a case, or give it to a person or the agent."""
    with _open_desk(desk_options) as desk:
        person = person_options.identify()
        if to is not None:
            person_options.check_assignee(to)
        view = desk.assign(person, case, to)
    _report(view, as_json=as_json)


@with_desk_options
@with_person_options
def approve(
    case: CaseNumber,
    amount: Annotated[
        str | None,
        typer.Option(
            metavar="<amount>", help="Amount to approve.", show_default="the amount claimed"
        ),
    ] = None,
    seen: Seen = None,
    as_json: AsJson = False,
    *,
    desk_options: DeskOptions,
    person_options: PersonOptions,
) -> None:
    """Approve a claim, and inform the customer.

    The decision holds for the case as it was shown. If it has changed since,
    it is refused, and the case is shown again.
    """
    decided = None if amount is None else _parse_amount(amount)
    with _open_desk(desk_options) as desk:
        person = person_options.identify()
        digest = _confirm(desk, case, seen, "Approve" if amount is None else f"Approve {amount} of")
        with _shown_again(desk, case, as_json=as_json):
            view = desk.approve(person, case, seen=digest, amount=decided)
    _report(view, as_json=as_json)


@with_desk_options
@with_person_options
def reject(
    case: CaseNumber,
    text: Annotated[str, typer.Argument(help="Reason, which the customer reads.")],
    seen: Seen = None,
    as_json: AsJson = False,
    *,
    desk_options: DeskOptions,
    person_options: PersonOptions,
) -> None:
    """Reject a claim with a sentence, which the customer reads."""
    with _open_desk(desk_options) as desk:
        person = person_options.identify()
        digest = _confirm(desk, case, seen, "Reject")
        with _shown_again(desk, case, as_json=as_json):
            view = desk.reject(person, case, text, seen=digest)
    _report(view, as_json=as_json)


@with_desk_options
@with_person_options
def reply(
    case: CaseNumber,
    text: Annotated[str, typer.Argument(help="Message to the customer.")],
    as_json: AsJson = False,
    *,
    desk_options: DeskOptions,
    person_options: PersonOptions,
) -> None:
    """Write to the customer, and take the case if nobody has."""
    with _open_desk(desk_options) as desk:
        view = desk.reply(person_options.identify(), case, text)
    _report(view, as_json=as_json)


@with_desk_options
@with_person_options
def close(
    case: CaseNumber,
    note: Annotated[
        str | None,
        typer.Option(help="Note for the history, such as what was done.", show_default="(nothing)"),
    ] = None,
    correct: Annotated[
        str | None,
        typer.Option(
            metavar="<json>",
            help="Action that the model should have chosen for the message that opened the case, "
            'such as {"action":"track_order","order":"SO-1042"}; see `corrections`.',
            show_default="(none)",
        ),
    ] = None,
    as_json: AsJson = False,
    *,
    desk_options: DeskOptions,
    person_options: PersonOptions,
) -> None:
    """Close a case; the agent answers its customer again."""
    with _open_desk(desk_options) as desk:
        view = desk.close(person_options.identify(), case, note, correct=correct)
    _report(view, as_json=as_json)


@with_desk_options
def corrections(
    out: Annotated[
        Path, typer.Argument(metavar="<out>", help="Text file to write, for `gpt2flow train`.")
    ],
    *,
    desk_options: DeskOptions,
) -> None:
    """Write the turns that people corrected, to train on.

    Erased ones are gone.
    """
    with _open_desk(desk_options) as desk:
        documents = desk.corrections()
    if not documents:
        raise CommandError("no case was closed with --correct yet", Exit.FAILURE)
    try:
        write_atomically(out, "".join(f"{document}\n" for document in documents))
    except OSError as error:
        raise CommandError(f"{out}: {error.strerror}", Exit.BAD_INPUT) from error
    typer.echo(f"{out}: {len(documents)} turns")


@contextmanager
def _open_desk(options: DeskOptions) -> Iterator["Desk"]:
    with needs_extra("agent"):
        from gpt2flow.agent.cases.decisions import Desk
        from gpt2flow.agent.config import utc_now
        from gpt2flow.agent.errors import AgentError, InputError
        from gpt2flow.agent.flows import load_flows
        from gpt2flow.agent.shop import Database, database_url
    with reported(bad_input=InputError, failure=AgentError):
        book = load_flows(options.flows)
        database = Database.open_existing(database_url(options.database))
        try:
            yield Desk(book, database, utc_now)
        finally:
            database.close()


def _save_pictures(view: "CaseView", contents: Sequence[bytes], folder: Path) -> list[Path]:
    """Save the pictures of a case, oldest first, and return their paths."""
    paths = [folder / f"{view.case}-{number}.png" for number in range(1, len(contents) + 1)]
    try:
        if contents and not folder.exists():
            folder.mkdir()
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
    except OSError as error:
        raise CommandError(f"--pictures {folder}: {error.strerror}", Exit.BAD_INPUT) from error
    return paths


def _confirm(desk: "Desk", case: str, seen: str | None, question: str) -> str:
    """Return the digest to decide on; show the case without one."""
    if seen is not None:
        return seen
    view = desk.show(case)
    if not sys.stdin.isatty():
        raise CommandError(
            f"--seen is missing: look at `gpt2flow agent show {view.case}`, and pass the digest",
            Exit.BAD_INPUT,
        )
    print_case(view, as_json=False)
    typer.confirm(f"{question} {view.kind} {view.case}?", abort=True)
    return view.digest


@contextmanager
def _shown_again(desk: "Desk", case: str, *, as_json: bool) -> Iterator[None]:
    """Show a case again if it changed since it was shown."""
    from gpt2flow.agent.cases.decisions import CaseChangedError

    try:
        yield
    except CaseChangedError:
        print_case(desk.show(case), as_json=as_json)
        raise


def _report(view: "CaseView", *, as_json: bool) -> None:
    if as_json:
        print_case(view, as_json=True)
        return
    last = view.history[-1]
    typer.echo(f"{view.case} {view.kind}: {last.change} by {last.actor}, now {view.status}")


def _parse_amount(text: str) -> Decimal:
    if not _AMOUNT.fullmatch(text):
        raise CommandError(
            f"--amount is {text!r:.80}, must be an amount such as 99.90", Exit.BAD_INPUT
        )
    return Decimal(text)


def add_commands(group: typer.Typer) -> None:
    """Add the commands to the group."""
    for command in (inbox, show, assign, approve, reject, reply, close, corrections):
        group.command()(command)
