"""Delivery of the outbox: transports, queue and dispatcher."""
