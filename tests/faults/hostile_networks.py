"""Network files that say little and take much: memory, time, or the process that opens them."""

import json
import shutil
import zipfile
from pathlib import Path

import h5py

SHAPE = (8, 8, 1)


def write(folder: Path) -> dict[str, Path]:
    """Write a good network as `good.keras` and `good.weights.h5`, and hostile ones, by name."""
    import keras

    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Dense(10, name="dense")(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs).save(folder / "good.keras")
    keras.Model(inputs, outputs).save_weights(folder / "good.weights.h5")
    with zipfile.ZipFile(folder / "good.keras") as archive:
        good = {name: archive.read(name) for name in archive.namelist()}
    units = json.loads(good["config.json"].replace(b'"units": 10', b'"units": 200000000'))
    _pack(folder / "units.keras", good | {"config.json": json.dumps(units).encode()})
    _pack(folder / "zeros.keras", good, zeros=9 * 2**28)
    (folder / "cut.keras").write_bytes((folder / "good.keras").read_bytes()[:-60])
    huge = folder / "huge.weights.h5"
    shutil.copy(folder / "good.weights.h5", huge)
    with h5py.File(huge, "a") as file:  # 40 GB, of which nothing is stored
        del file["layers/dense/vars/0"]
        file.create_dataset("layers/dense/vars/0", (100_000, 100_000), "f4", chunks=(100, 100))
    _pack(folder / "huge.keras", good | {"model.weights.h5": huge.read_bytes()})
    return {path.name: path for path in folder.iterdir()}


def write_saved_models(folder: Path) -> dict[str, Path]:
    """Write SavedModels that answer once they have counted without end, or filled 30 GB."""
    import tensorflow as tf

    def endless(image):
        return tf.while_loop(lambda x: x < 1e30, lambda x: x * 1.0, [tf.reduce_sum(image)])[0]

    def greedy(image):
        return tf.reduce_sum(tf.zeros([tf.shape(image)[0] * 10**6, 8000])) + tf.reduce_sum(image)

    def write_one(work):
        @tf.function(input_signature=[tf.TensorSpec([None, *SHAPE], name="image")])
        def answer(image):
            p = tf.zeros([tf.shape(image)[0], 2]) + work(image)
            return {"logits": p, "probabilities": p, "class_id": tf.argmax(p, 1, tf.int32)}

        module = tf.Module()
        module.answer = answer
        tf.saved_model.save(module, folder / work.__name__ / "1", signatures=answer)

    write_one(endless)
    write_one(greedy)
    return {name: folder / name for name in ("endless", "greedy")}


def _pack(path: Path, members: dict[str, bytes], zeros: int = 0) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            if not (zeros and name == "model.weights.h5"):
                archive.writestr(name, data)
        if zeros:
            with archive.open("model.weights.h5", "w", force_zip64=True) as file:
                for _ in range(zeros // 2**24):
                    file.write(bytes(2**24))
