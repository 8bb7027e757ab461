"""From a trained network to files that serve it, each checked against it."""
