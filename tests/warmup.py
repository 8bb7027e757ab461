"""Reads the warm-up requests of an exported SavedModel."""

import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2


def read_warmup(path):
    """Return the requests in a file, as `PredictRequest`s."""
    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    logs = [prediction_log_pb2.PredictionLog.FromString(record) for record in records]
    return [log.predict_log.request for log in logs]
