"""HTTP side of the gateway: admission, routes, streams, observation."""
