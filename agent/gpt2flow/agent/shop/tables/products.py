"""Product tables."""

from decimal import Decimal

from sqlalchemy import CheckConstraint, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from gpt2flow.agent.shop.tables.base import Base


class ProductAlias(Base):
    """Alternative name of a product, in any language."""

    __tablename__ = "product_aliases"

    sku: Mapped[str] = mapped_column(ForeignKey("products.sku"), primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)


class Product(Base):
    """Product of the catalogue; `stock` excludes reserved items."""

    __tablename__ = "products"
    __table_args__ = (CheckConstraint("stock >= 0", name="stock_not_negative"),)

    sku: Mapped[str] = mapped_column(primary_key=True)
    name_en: Mapped[str]
    name_zh: Mapped[str]
    price: Mapped[Decimal]
    stock: Mapped[int]
    aliases: Mapped[list[ProductAlias]] = relationship(order_by=ProductAlias.alias)

    def name(self, language: str) -> str:
        """Return the name of the product in a language."""
        return self.name_zh if language == "zh" else self.name_en

    @property
    def names(self) -> list[str]:
        """All names of the product, aliases included."""
        return [self.name_en, self.name_zh, *(alias.alias for alias in self.aliases)]
