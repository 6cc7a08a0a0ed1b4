"""Schema of recordings that a person has to complete."""

from typing import Self

from pydantic import Field, model_validator

from gpt2flow.agent.hands.proof import Proof
from gpt2flow.agent.hands.recording import Element, Recording, ScreenStep
from gpt2flow.files.documents import StrictModel


class DraftProof(Proof):
    """Proof that may have no text yet."""

    @model_validator(mode="after")
    def _proves_something(self) -> Self:
        return self


class DraftRecording(Recording):
    """Recording of an action whose proof may have no text yet.

    Attributes:
        proof: Page that shows whether the action was carried out.
    """

    proof: DraftProof


class DraftFile(StrictModel):
    """File of such recordings, by action.

    Attributes:
        actions: Recordings, complete or not.
    """

    actions: dict[str, DraftRecording]


class DraftSignIn(StrictModel):
    """Sign-in that may lack the element of a served conversation.

    Attributes:
        steps: Steps of the sign-in.
        signed_out: Element by which a page that wants a sign-in is recognized.
        serve: Steps after which the shop's pages are those of the conversation.
        serving: Element that every page then shows; None if it was not found.
    """

    steps: list[ScreenStep] = Field(min_length=1)
    signed_out: Element
    serve: list[ScreenStep] = Field(min_length=1)
    serving: Element | None = None
