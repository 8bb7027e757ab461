"""The command `tfdistill`."""
