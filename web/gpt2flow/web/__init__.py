"""HTTP services of several programs: addresses, servers, bodies, metrics, log."""
