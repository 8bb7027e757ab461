"""Weights from elsewhere for networks that are built: from Keras's files and from PyTorch."""
