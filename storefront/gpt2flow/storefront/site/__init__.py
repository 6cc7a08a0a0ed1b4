"""Parts that the pages share: visits, forms, notices, rendering."""
