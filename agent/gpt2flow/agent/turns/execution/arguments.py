"""Arguments of an action: collected, checked, and completed."""

import functools
import re
from collections.abc import Collection

import phonenumbers
from email_validator import EmailNotValidError, validate_email

from gpt2flow.agent.flows import FlowBook
from gpt2flow.agent.flows.prompt import Arguments
from gpt2flow.agent.flows.slots import SlotKind, candidates, strip_contacts
from gpt2flow.agent.operations import Context, infer_arguments
from gpt2flow.agent.operations.lookup import find_packed_product
from gpt2flow.agent.operations.times import find_time, parse_time
from gpt2flow.agent.shop.matching import strip_filler
from gpt2flow.agent.turns.execution.quantities import quantity_beside
from gpt2flow.agent.turns.execution.task import ADD_TO_CART, Task

_NAME, _ADDRESS, _PRODUCT = "name", "address", "product"
_QUANTITY, _CONTACT, _TIME = "quantity", "contact", "time"
# Operations whose contact is the customer's own.
_IDENTIFYING = ("log_in", "register")
# Regions in which a number without a country code may be one.
_REGIONS = ("CN", "GB", "US", "IN", "AU", "IE", "HK", "SG", "TW", "DE", "FR")
_NUMBER = re.compile(
    r"\d|[一二三四五六七八九十百]|\b(?:one|two|three|four|five|six|seven|eight|nine)\b"
)
_ADDRESS_PART = re.compile(
    r"[\d一二三四五六七八九十省市区县镇乡村路街道巷弄号楼栋幢座单元室层苑园庄城厦场校院馆店站]"
)
_PRICE = re.compile(r"\d ?(?:元|块|折|%)")
# Words next to a name that a customer gives; none of them is one.
_NO_NAME_WORDS = """
    sir madam ma'am mr mrs ms miss dr name names phone email e-mail mail account customer hello hi
    hey please thanks team me myself i it new order login register sign yes no ok okay
    电话 手机 手机号 邮箱 名字 姓名 先生 女士 小姐 您好 你好 客服 账号 账户 注册 登录 谢谢 我 本人
    用户 是的
"""
_NO_NAMES = frozenset(_NO_NAME_WORDS.split())


def collect_arguments(
    book: FlowBook, context: Context, task: Task, asked_for: Collection[str] = ()
) -> Arguments:
    """Return the chosen, pending and inferred arguments, in slot order.

    Args:
        book: Loaded flows.
        context: Context of the action.
        task: Request to execute the action.
        asked_for: Slots that are asked for rather than inferred.
    """
    spec = book.actions[task.choice.action]
    values = task.given
    if task.event is not None:
        orders = (s for s in spec.slots if book.slots[s].kind is SlotKind.ORDER)
        values |= dict.fromkeys(orders, task.event.subject)
    values = {slot: v for slot, v in values.items() if not _is_reference(slot, v)}
    values |= _negative_numbers(book, values, task.message)
    if _NAME in values:
        values[_NAME] = strip_contacts(str(values[_NAME]))
    if _ADDRESS in values:
        values[_ADDRESS] = whole_clauses(str(values[_ADDRESS]), task.message)
    # What a customer repeats when asked is taken, such as the name of a house.
    plausible = {
        slot: value
        for slot, value in values.items()
        if slot == task.answers or is_plausible(slot, book.slots[slot].kind, value)
    }
    plausible |= _read_message(book, context, task)
    # A value that was given, but cannot be, is asked for instead of inferred.
    missing = [slot for slot in spec.required if slot not in values and slot not in plausible]
    missing = [slot for slot in missing if slot not in asked_for]
    values = plausible | infer_arguments(context, spec.operation, missing, plausible)
    return {slot: values[slot] for slot in spec.slots if slot in values}


def _read_message(book: FlowBook, context: Context, task: Task) -> Arguments:
    """Return values that the message has beyond doubt.

    The model has none for their slots, or another one.

    - `product`: the product whose unit the model read, as in "two packs of tea".
    - `quantity`: the number that stands beside the product that is added.
    - `time`: the one in it, if what the model read is none.
    - the contact of who logs in or registers: the only one in it.
    """
    found: Arguments = {}
    if task.event is not None:
        return found
    spec, given = book.actions[task.choice.action], task.given
    if (unit := given.get(_PRODUCT)) is not None:
        product = find_packed_product(context, str(unit))
        found |= {_PRODUCT: product.name(context.language)} if product is not None else {}
        if spec.operation == ADD_TO_CART:
            read = given.get(_QUANTITY)
            beside = quantity_beside(task.message, str(unit), None if read is None else int(read))
            found |= {_QUANTITY: beside} if beside is not None else {}
    if (phrase := given.get(_TIME)) is not None and parse_time(str(phrase), context.now) is None:
        moment = find_time(task.message, context.now)
        found |= {_TIME: moment} if moment is not None else {}
    if spec.operation in _IDENTIFYING and _CONTACT not in given:
        contacts = candidates(SlotKind.CONTACT, task.message)
        plausible = [each for each in contacts if is_plausible(_CONTACT, SlotKind.CONTACT, each)]
        found |= {_CONTACT: plausible[0]} if len(plausible) == 1 else {}
    return found


def is_plausible(slot: str, kind: SlotKind, value: str | int) -> bool:
    """Return whether a value can be what its slot means.

    - A name has a letter and no digit, and is no word such as "Sir" or 电话.
    - An address has a number.
    - A contact is an e-mail address, or has the length of a phone number of some country.
    """
    text = str(value)
    if kind is SlotKind.CONTACT:
        return _is_email(text) if "@" in text else _is_phone(text)
    if slot == _NAME:
        is_word = text.casefold().strip(".") in _NO_NAMES
        return any(map(str.isalpha, text)) and not any(map(str.isdecimal, text)) and not is_word
    if slot == _ADDRESS:
        return bool(_NUMBER.search(text.casefold()))
    return True


def whole_clauses(address: str, message: str) -> str:
    """Return an address without a last clause that was cut short.

    Chinese has no spaces, so that the model may end inside a word: ",VIP应" of "VIP应该是0元".
    """
    before, comma, clause = address.rpartition("," if "," in address else "，")
    _, _, rest = message.partition(address)
    is_cut = bool(rest) and rest[0].isalnum() and not rest[0].isascii()
    is_part = _ADDRESS_PART.search(clause) and not _PRICE.search(clause)
    if not comma or not is_cut or is_part or not _NUMBER.search(before):
        return address
    return before.rstrip()


def _is_reference(slot: str, value: str | int) -> bool:
    """Return whether a value only refers back, such as "of them"."""
    return slot == _PRODUCT and not strip_filler(str(value))


def _negative_numbers(book: FlowBook, values: Arguments, message: str) -> Arguments:
    """Return the numbers that the message has with a minus sign alone."""
    found: Arguments = {}
    for slot, value in values.items():
        if book.slots[slot].kind is not SlotKind.INTEGER:
            continue
        # A dash before a space begins the item of a list.
        signs = re.findall(rf"(?<![\w.,])([-−–]?){value}(?!\d)", message)
        if signs and all(signs):
            found[slot] = -int(value)
    return found


def _is_email(text: str) -> bool:
    try:
        validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return False
    return True


@functools.lru_cache(maxsize=1024)
def _is_phone(text: str) -> bool:
    regions = (None,) if text.startswith("+") else _REGIONS
    return any(_is_possible(text, region) for region in regions)


def _is_possible(text: str, region: str | None) -> bool:
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(text, region))
    except phonenumbers.NumberParseException:
        return False
