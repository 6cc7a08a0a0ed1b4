"""Tests of what a page proves about an unanswered press."""

import pytest

from gpt2flow.agent.hands.errors import UnexpectedPageError
from gpt2flow.agent.hands.proof import Proof, judge

CART = ["/cart", '- row "tea 1 2.00"', '- strong: "2.00"']
KNOWN: dict[str, str | int] = {"product": "tea", "quantity": 2, "total": "4.00"}
ADD = Proof(path="/cart", new=['row "{product} {quantity}', 'strong: "{total}"'])


def reading(*lines: str) -> str:
    return "\n".join(lines)


def proves(proof: Proof, after: list[str], *, is_success: bool = True) -> dict[str, str]:
    return judge(
        proof, reading(*CART), reading(*after), KNOWN, reads=["order"], is_success=is_success
    )


def test_a_page_that_changed_as_meant_proves_the_action() -> None:
    assert proves(ADD, ["/cart", '- row "tea 2 4.00"', '- strong: "4.00"']) == {}


@pytest.mark.parametrize(
    "after",
    [
        # The customer added something else, or another quantity, or nothing that counts.
        ["/cart", '- row "tea 1 2.00"', '- row "cup 1 2.00"', '- strong: "4.00"'],
        ["/cart", '- row "tea 3 6.00"', '- strong: "6.00"'],
        ["/cart", '- row "tea 2 4.00"', '- row "cup 1 2.00"', '- strong: "6.00"'],
        ["/cart", '- row "green tea 2 4.00"', '- strong: "4.00"'],
        ["/cart", "- paragraph: Your cart is empty."],
        ["/sign-in", '- row "tea 2 4.00"', '- strong: "4.00"'],
    ],
)
def test_any_other_change_is_a_person_s(after: list[str]) -> None:
    with pytest.raises(UnexpectedPageError):
        proves(ADD, after)


def test_a_text_is_gone_only_if_it_is_nowhere() -> None:
    gone = Proof(path="/cart", gone=['row "{product}'])
    assert proves(gone, ["/cart", "- paragraph: Your cart is empty."]) == {}
    with pytest.raises(UnexpectedPageError, match="with 'row \"tea'"):
        proves(gone, ["/cart", '- row "tea 2 4.00"'])
    with pytest.raises(UnexpectedPageError):
        proves(gone, [*CART, "- row"])


def test_a_new_number_has_to_be_the_only_one() -> None:
    proof = Proof(path="/cart", new=['row "{order} ... {total}'])
    one, two = '- row "SO-7 today 4.00"', '- row "SO-8 today 4.00"'
    assert proves(proof, [*CART, one, '- row "SO-9 today 5.00"']) == {"order": "SO-7"}
    with pytest.raises(UnexpectedPageError, match="more than once"):
        proves(proof, [*CART, one, two])


def test_a_way_that_leads_elsewhere_is_named_in_the_recording() -> None:
    proof = Proof(path="/review", at="/cart", new=["{total}"])
    assert proves(proof, ["/cart", '- strong: "4.00"']) == {}
    with pytest.raises(UnexpectedPageError, match="leads to /orders, and not to /cart"):
        proves(proof, ["/orders", '- strong: "4.00"'])


def test_a_refusal_has_proofs_of_its_own() -> None:
    refused = Proof(path="/cart", new=["nowhere"], refused=["of at most"])
    assert proves(refused, ["/cart", "- definition: 1 of at most 5"], is_success=False) == {}
    with pytest.raises(UnexpectedPageError, match="whether the shop has refused"):
        proves(ADD, ["/cart", '- row "tea 2 4.00"'], is_success=False)


def test_a_proof_that_any_change_would_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a text in `new` or in `gone`"):
        Proof(path="/cart", shows=["{product}"])
