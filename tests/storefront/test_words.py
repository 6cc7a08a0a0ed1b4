"""Words of the storefront: complete, used, and the same in both languages."""

import re
import shutil
from pathlib import Path

import pytest
from tests.support.project import PROJECT
from tests.support.site_words import SiteWords, fields

from gpt2flow.agent.errors import FlowError
from gpt2flow.agent.flows import FlowBook, load_flows
from gpt2flow.agent.shop import CLAIMS, CaseStatus
from gpt2flow.agent.wording import Language
from gpt2flow.storefront.counter import ACTIONS, check_actions
from gpt2flow.storefront.pages.cart import SOURCES
from gpt2flow.storefront.site.site import WORDS

STOREFRONT = SiteWords(
    PROJECT / "storefront" / "gpt2flow" / "storefront",
    WORDS,
    re.compile(r"(name|reason|outcome|source|by)_\w+|\w+_renamed"),
)


def test_both_languages_have_the_same_keys_and_fields() -> None:
    STOREFRONT.check_languages()


def test_every_key_of_a_template_has_words_and_every_word_is_used() -> None:
    assert STOREFRONT.unused() == {"sent_before"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_value_has_a_name(language: Language, book: FlowBook) -> None:
    names = {f"name_{status.value}" for status in CaseStatus}
    names |= {f"name_{reason}" for reason in book.slots["reason"].values}
    names |= {f"source_{source}" for source in SOURCES}
    assert names <= set(STOREFRONT.texts(language))


def test_every_refusal_of_a_form_has_words() -> None:
    modules = [path.read_text(encoding="utf-8") for path in STOREFRONT.package.rglob("*.py")]
    raised = {
        key
        for text in modules
        for key in re.findall(r"(?:FormFieldError|refuse)\([^)]*?\"(\w+)\"", text)
    }
    assert len(raised) > 8
    assert {f"reason_{key}" for key in raised} <= set(STOREFRONT.texts("en"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_text_of_the_flows_with_a_code_is_shown(language: Language, book: FlowBook) -> None:
    """Outcomes that go to a contact have words of the page."""
    sent = [
        f"outcome_{name}_{outcome}"
        for name, action in book.actions.items()
        for outcome, spec in action.outcomes.items()
        if spec.message and "code" in fields(spec.message[language])
    ]
    assert len(sent) == 5
    for key in sent:
        assert "code" not in fields(STOREFRONT.texts(language)[key])


def test_every_outcome_of_the_office_has_words(book: FlowBook) -> None:
    outcomes = {
        f"outcome_{name}_{outcome}"
        for name in ("assign_courier", "send_delivery_details")
        for outcome in book.actions[name].outcomes
    }
    outcomes |= {"outcome_cancel_order_cancelled", "outcome_cancel_order_too_late"}
    assert outcomes <= set(STOREFRONT.texts("en"))


def test_the_pages_carry_out_the_actions_that_the_flows_must_have() -> None:
    sources = "".join(
        path.read_text("utf-8") for path in (STOREFRONT.package / "pages").glob("*.py")
    )
    claims = {f"request_{kind.value}" for kind in CLAIMS}
    named = {name for name in ACTIONS if f'"{name}"' in sources}
    assert named | claims == set(ACTIONS)


def test_flows_without_an_action_of_the_pages_are_refused(tmp_path: Path) -> None:
    flows = tmp_path / "flows"
    shutil.copytree(PROJECT / "agent" / "gpt2flow" / "agent" / "flows", flows)
    shutil.rmtree(flows / "shipping")
    with pytest.raises(FlowError, match="the flows lack change_address, confirm_delivery"):
        check_actions(load_flows(flows))
