"""Names of elements, as Playwright finds them: by role and accessible name."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final, get_args

import yaml
from playwright.async_api import Locator, Page, Playwright

from gpt2flow.agent.hands.errors import RecorderError
from gpt2flow.agent.hands.recording import Element, Role

# Selector engine of the elements that recorder.js holds, by number.
_ENGINE: Final = "held"
_ENGINE_SCRIPT: Final = """{
  query(root, number) { return window.gpt2flowRecorder.element(number); },
  queryAll(root, number) { return [window.gpt2flowRecorder.element(number)]; },
}"""
# First key of a snapshot: `button "Add to cart"`, with the name as a string of JSON.
_NODE: Final = re.compile(r'([a-z]+)(?: ("(?:[^"\\]|\\.)*"))?(?: \[.*)?')
_ROLES: Final = frozenset(get_args(Role))
_IS_SAME: Final = "(element, number) => element === window.gpt2flowRecorder.element(number)"


async def register_engine(playwright: Playwright) -> None:
    """Let Playwright find the elements that the page's script holds."""
    await playwright.selectors.register(_ENGINE, _ENGINE_SCRIPT)


def held(page: Page, number: int) -> Locator:
    """Return the locator of a held element."""
    return page.locator(f"{_ENGINE}={number}")


def locate(page: Page, element: Element) -> Locator:
    """Return the locator with which a replay finds an element."""
    return page.get_by_role(element.role, name=element.name, exact=True)


async def name_element(page: Page, number: int, what: str) -> Element:
    """Return the role and name that belong to a held element alone.

    Args:
        page: Page of the element.
        number: Number of the element.
        what: Description of the element, for messages.

    Raises:
        RecorderError: The element has no such role or name, or is not the only one.
    """
    snapshot = yaml.safe_load(await held(page, number).aria_snapshot())
    role, name = next(_nodes(snapshot), ("", ""))
    if role not in _ROLES:
        raise RecorderError(
            f"{what} cannot be recorded: a step needs one of the roles {', '.join(sorted(_ROLES))}"
        )
    if not name:
        raise RecorderError(
            f"{what} has the role {role} and no name; give it a label, a text or an aria-label"
        )
    element = Element(role=role, name=name)
    locator = locate(page, element)
    if (count := await locator.count()) != 1:
        raise RecorderError(
            f"{what}: the page has {count} elements {role} {name!r}; give each a name of its own"
        )
    if not (await locator.evaluate(_IS_SAME, number) and await locator.is_visible()):
        raise RecorderError(f"{what} cannot be recorded: {role} {name!r} is another element")
    return element


async def named_elements(page: Page) -> list[Element]:
    """Return the elements of a page that a step may name."""
    snapshot = yaml.safe_load(await page.locator("body").aria_snapshot())
    return [
        Element(role=role, name=name) for role, name in _nodes(snapshot) if role in _ROLES and name
    ]


def _nodes(snapshot: Any) -> Iterator[tuple[Any, str]]:
    """Yield the roles and names of a snapshot's elements."""
    match snapshot:
        case list():
            for each in snapshot:
                yield from _nodes(each)
        case dict():
            for node, parts in snapshot.items():
                yield from _nodes(node)
                if isinstance(parts, list):
                    yield from _nodes(parts)
        case _:
            found = _NODE.fullmatch(str(snapshot))
            yield (found[1], json.loads(found[2]) if found[2] else "") if found else ("", "")
