"""From what a user has to a finished study: photos and a trained network to a small one."""
