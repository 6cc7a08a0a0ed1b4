"""HTTP endpoint: signed customer messages in, reports of their turns out."""
