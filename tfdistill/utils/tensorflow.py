"""Starts TensorFlow once, without the lines about its build that it writes past Python."""

import os
import sys


def start() -> None:
    """Import TensorFlow quietly; some seconds in a new process, nothing afterwards."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_logical_devices()  # the devices have their say when they are first used
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    # Every network has a function of its own; TensorFlow takes that for needless retracing.
    tf.get_logger().setLevel("ERROR")
