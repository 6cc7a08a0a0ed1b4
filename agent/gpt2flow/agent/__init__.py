"""Agent: declarative flows, grammar-constrained actions, durable turns and a shop."""
