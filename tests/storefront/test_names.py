"""Names of the elements of each page: the contract of robots."""

from typing import Final, Literal

import pytest
from playwright.sync_api import expect
from tests.support.shop import Shop
from tests.support.storefront_windows import Windows, buy

pytestmark = pytest.mark.process
Role = Literal["button", "combobox", "link", "searchbox", "spinbutton", "textbox"]
# Elements of each page, by role and name, that people and programs find them by.
ENGLISH: Final[dict[str, list[tuple[Role, str]]]] = {
    "/": [("searchbox", "Search"), ("button", "Search"), ("link", "umbrella")],
    "/products/desk-lamp": [("spinbutton", "Quantity"), ("button", "Add to cart")],
    "/cart": [
        ("spinbutton", "Quantity: umbrella"),
        ("button", "Update: umbrella"),
        ("button", "Remove: umbrella"),
        ("link", "Check out"),
    ],
    "/checkout": [("textbox", "Delivery address"), ("button", "Review order")],
    "/checkout/review": [("button", "Place order"), ("button", "Do not order")],
    "/account": [("textbox", "Name"), ("button", "Save name"), ("button", "Log out")],
    "/orders": [("link", "SO-1001")],
    "/orders/SO-1001": [
        ("link", "Cancel order"),
        ("textbox", "Delivery address"),
        ("button", "Change address"),
        ("button", "It has arrived"),
        ("combobox", "Claim"),
        ("combobox", "Reason"),
        ("textbox", "Details"),
        ("button", "Review claim"),
    ],
    "/orders/SO-1001/cancel": [("button", "Yes, cancel it")],
    "/orders/SO-1001/claim?claim=refund&reason=late": [("button", "Send claim")],
    "/call": [("textbox", "Day and time"), ("button", "Ask for a call")],
    "/help": [
        ("link", "Shop"),
        ("link", "Cart"),
        ("link", "My orders"),
        ("link", "Account"),
        ("textbox", "Message"),
        ("button", "Send"),
    ],
}
CHINESE: Final[dict[str, list[tuple[Role, str]]]] = {
    "/": [("searchbox", "搜索"), ("button", "搜索"), ("link", "雨伞")],
    "/products/desk-lamp": [("spinbutton", "数量"), ("button", "加入购物车")],
    "/cart": [
        ("spinbutton", "数量: 雨伞"),
        ("button", "更新: 雨伞"),
        ("button", "移除: 雨伞"),
        ("link", "去结算"),
    ],
    "/checkout": [("textbox", "收货地址"), ("button", "核对订单")],
    "/checkout/review": [("button", "提交订单"), ("button", "暂不下单")],
    "/account": [("textbox", "姓名"), ("button", "保存姓名"), ("button", "退出登录")],
    "/orders": [("link", "SO-1001")],
    "/orders/SO-1001": [
        ("link", "取消订单"),
        ("textbox", "收货地址"),
        ("button", "修改地址"),
        ("button", "已收到"),
        ("combobox", "申请"),
        ("combobox", "原因"),
        ("textbox", "说明"),
        ("button", "核对申请"),
    ],
    "/orders/SO-1001/cancel": [("button", "确认取消")],
    "/orders/SO-1001/claim?claim=refund&reason=late": [("button", "提交申请")],
    "/call": [("textbox", "日期和时间"), ("button", "预约回电")],
    "/help": [
        ("link", "商店"),
        ("link", "购物车"),
        ("link", "我的订单"),
        ("link", "账户"),
        ("textbox", "消息"),
        ("button", "发送"),
    ],
}
# Those of a visitor who is verifying, and of the back office.
OTHERS: Final[dict[str, dict[str, list[tuple[Role, str]]]]] = {
    "en": {
        "/register": [("textbox", "Name"), ("textbox", "E-mail or phone")],
        "/sign-in": [("textbox", "E-mail or phone"), ("button", "Send code")],
        "/code": [
            ("textbox", "Code"),
            ("button", "Log in"),
            ("button", "Send a new code"),
            ("textbox", "Another e-mail or phone"),
            ("button", "Send it there"),
        ],
        "/office": [
            ("link", "SO-1001"),
            ("link", "Couriers"),
            ("link", "Claims"),
            ("link", "Calls"),
            ("link", "Serve a conversation"),
        ],
        "/office/orders/SO-1001": [
            ("button", "Assign courier"),
            ("button", "Send delivery details"),
            ("link", "Cancel order"),
        ],
        "/office/couriers": [("button", "Pause: Northwind Express")],
        "/office/serve": [("textbox", "Conversation"), ("button", "Serve")],
    },
    "zh": {
        "/register": [("textbox", "姓名"), ("textbox", "邮箱或手机")],
        "/sign-in": [("textbox", "邮箱或手机"), ("button", "发送验证码")],
        "/code": [
            ("textbox", "验证码"),
            ("button", "登录"),
            ("button", "重新发送"),
            ("textbox", "换一个邮箱或手机"),
            ("button", "发到这里"),
        ],
        "/office": [
            ("link", "SO-1001"),
            ("link", "快递"),
            ("link", "售后"),
            ("link", "回电"),
            ("link", "服务会话"),
        ],
        "/office/orders/SO-1001": [
            ("button", "分配快递"),
            ("button", "发送配送信息"),
            ("link", "取消订单"),
        ],
        "/office/couriers": [("button", "暂停: 北风快递")],
        "/office/serve": [("textbox", "会话"), ("button", "开始服务")],
    },
}


@pytest.mark.parametrize("language, pages", [("en", ENGLISH), ("zh", CHINESE)])
def test_each_element_has_its_name_once(
    shop: Shop, windows: Windows, language: str, pages: dict[str, list[tuple[Role, str]]]
) -> None:
    locale = "en-GB" if language == "en" else "zh-CN"
    ann = windows.register(locale=locale)
    shop.order()
    buy(ann.page, "umbrella")
    verifying = windows.open(locale=locale)
    windows.ask_for_code(verifying, "bob@example.com")
    hal = windows.operator("hal", locale=locale)
    seen = [(ann, path, elements) for path, elements in pages.items()]
    for path, elements in OTHERS[language].items():
        seen.append((hal if path.startswith("/office") else verifying, path, elements))
    for window, path, elements in seen:
        window.page.goto(path)
        for summary in window.page.locator("details:not([open]) > summary").all():
            summary.click()
        for role, name in elements:
            found = window.page.get_by_role(role, name=name, exact=True)
            expect(found, f"{path} {role} {name}").to_have_count(1)
        expect(window.page.get_by_role("main")).to_have_count(1)
        expect(window.page.get_by_role("heading", level=1)).to_have_count(1)
