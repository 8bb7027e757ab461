"""Trained networks that others publish, as teachers: KerasHub's and those of keras.applications."""
