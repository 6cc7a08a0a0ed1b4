"""Shop database: customers, products, orders, parcels, cases and messages."""

from gpt2flow.agent.shop.database import Database, database_url
from gpt2flow.agent.shop.tables.base import Base
from gpt2flow.agent.shop.tables.cases import CLAIMS, INBOX, Case, CaseEvent, CaseKind, CaseStatus
from gpt2flow.agent.shop.tables.orders import (
    Courier,
    Order,
    OrderLine,
    OrderStatus,
    Shipment,
    order_id,
)
from gpt2flow.agent.shop.tables.outbox import Audience, Delivery, OutboxMessage
from gpt2flow.agent.shop.tables.payments import Payment, PaymentStatus
from gpt2flow.agent.shop.tables.products import Product, ProductAlias
from gpt2flow.agent.shop.tables.records import AgentProcess, ExecutedAction, ModelCall
from gpt2flow.agent.shop.tables.screens import CasePicture, ScreenWork
from gpt2flow.agent.shop.tables.sessions import (
    CartLine,
    Checkout,
    Customer,
    CustomerSession,
    ReceivedMessage,
    Verification,
)

__all__ = [
    "CLAIMS",
    "INBOX",
    "AgentProcess",
    "Audience",
    "Base",
    "CartLine",
    "Case",
    "CaseEvent",
    "CaseKind",
    "CasePicture",
    "CaseStatus",
    "Checkout",
    "Courier",
    "Customer",
    "CustomerSession",
    "Database",
    "Delivery",
    "ExecutedAction",
    "ModelCall",
    "Order",
    "OrderLine",
    "OrderStatus",
    "OutboxMessage",
    "Payment",
    "PaymentStatus",
    "Product",
    "ProductAlias",
    "ReceivedMessage",
    "ScreenWork",
    "Shipment",
    "Verification",
    "database_url",
    "order_id",
]
