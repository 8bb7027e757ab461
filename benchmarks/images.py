"""Measure what images cost that stay in their files: time of a training crop, and memory.

Photos of 500 x 375 pixels are generated. `crops`: microseconds of one thread for a training crop of
224 pixels (8 to 100 % of the area, mirrored or not), from decoded arrays, from files, and from
files with antialiasing; each repeats in turns, and medians count. Targets: files 1,200, antialiased
2,300. `memory`: the peak of a process that trains on photos in files, with a first look at all of
them; target: 2 GB for 20,000.

    python benchmarks/images.py crops --output crops.json
    python benchmarks/images.py memory --photos 20000 --output memory.json
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HEIGHT, WIDTH, SIZE = 375, 500, 224
DIFFERENT = 200
TRAINING = """
import resource, sys, time
from pathlib import Path
from tfdistill.config import AugmentConfig, DataConfig, ModelConfig, StudyConfig, TrainingConfig
from tfdistill.training import runner
images = DataConfig(
    f"folder:{sys.argv[1]}", input_size=64, validation=200, test_examples=200, storage=sys.argv[3],
    augment=AugmentConfig(resized_crop=0.08, flip=True),
)
study = StudyConfig(
    study="single", seeds=[0], data=images, teacher=ModelConfig("cnn2", width=0.25),
    training=TrainingConfig(epochs=1, batch_size=128),
)
began = time.perf_counter()
runner.run_study(study, Path(sys.argv[2]))
seconds = time.perf_counter() - began
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def write_photos(folder: Path, count: int) -> None:
    """Write JPEG photos of two classes; `DIFFERENT` ones, each under several names."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        path = folder / ("cat", "dog")[number % 2] / f"{number:06}.jpg"
        if number >= DIFFERENT:
            first = number % DIFFERENT
            os.link(folder / ("cat", "dog")[first % 2] / f"{first:06}.jpg", path)
            continue
        small = random.normal(128, 50, (HEIGHT // 15, WIDTH // 15, 3))
        smooth = tf.image.resize(small, (HEIGHT, WIDTH), method="bicubic").numpy()
        pixels = np.clip(smooth + random.normal(0, 9, smooth.shape), 0, 255).astype(np.uint8)
        path.write_bytes(tf.io.encode_jpeg(pixels, quality=85).numpy())


def crops(repeats: int) -> dict:
    """Return microseconds of one thread for a training crop, by where it comes from."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    from tfdistill.config import AugmentConfig, DataConfig
    from tfdistill.data import BatchSettings, load, training_batches

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TFDISTILL_CACHE"] = f"{scratch}/cache"
        write_photos(Path(scratch) / "photos", DIFFERENT)
        sizes = [path.stat().st_size for path in Path(scratch).glob("photos/*/*.jpg")]
        kinds = {
            "decoded arrays": ("memory", False),
            "files": ("files", False),
            "files, antialiased": ("files", True),
        }
        passes = {}
        for name, (storage, antialias) in kinds.items():
            source = f"folder:{scratch}/photos"
            images = load(
                DataConfig(source, storage=storage, input_size=SIZE, workers=1),
                tell=lambda note: None,
            )
            augment = AugmentConfig(resized_crop=0.08, flip=True, antialias=antialias)
            settings = BatchSettings(20, augment=augment, input_size=SIZE)
            batches = training_batches(images.train, settings, epochs=2)
            passes[name] = (batches, 2 * len(images.train))
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for repeat in range(repeats + 1):  # the first one traces
            for name, (batches, count) in passes.items():
                began = time.process_time()
                for _ in batches:
                    pass
                if repeat:
                    found[name].append(1e6 * (time.process_time() - began) / count)
        pieces = pieces_of(images, augment, repeats)
    result: dict = {name: statistics.median(times) for name, times in found.items()}
    about = {"repeats": repeats, "mean file kB": statistics.mean(sizes) / 1000}
    return {**result, **pieces, **about, "all": found}


def pieces_of(images, augment, repeats: int) -> dict[str, float]:
    """Return microseconds of what a crop from a file is made of, each done alone."""
    import tensorflow as tf

    from tfdistill.data import augment as rendering
    from tfdistill.data import views

    encoded, ids = images.train.images, images.train.ids
    began = time.process_time()
    data = [encoded._read(row) for row in encoded.rows]
    found = {"of them: reading, checksum": 1e6 * (time.process_time() - began) / len(data)}
    drawn = views.windows(0, 0, int(ids.max()) + 1, augment, (HEIGHT, WIDTH))
    windows = tf.gather(drawn, ids)

    def resized(data: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        part = encoded.part({"data": data}, rendering.box(window))
        return tf.image.resize(part, (SIZE, SIZE))

    # Each with what comes before it, which is taken off afterwards.
    steps = {
        "nothing": lambda data, window: window,
        "of them: decoding the part": lambda data, window: encoded.part(
            {"data": data}, rendering.box(window)
        ),
        "of them: resizing": resized,
        "of them: rounding": lambda data, window: rendering.to_uint8(resized(data, window)),
        "whole photo, decoding": lambda data, window: encoded.whole({"data": data}),
    }
    options = tf.data.Options()
    options.autotune.enabled = False
    rows = tf.data.Dataset.from_tensor_slices((data, windows))
    pipelines = {
        name: rows.map(step, num_parallel_calls=1).with_options(options)
        for name, step in steps.items()
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, pipeline in pipelines.items():
            began = time.process_time()
            for _ in pipeline:
                pass
            if repeat:
                times[name].append(1e6 * (time.process_time() - began) / len(data))
    medians = {name: statistics.median(each) for name, each in times.items()}
    before = medians["nothing"]
    for name in list(steps)[1:4]:
        found[name], before = medians[name] - before, medians[name]
    found["whole photo, decoding"] = medians["whole photo, decoding"] - medians["nothing"]
    return found


def memory(given: argparse.Namespace) -> dict:
    """Return the peak memory of a process that trains one epoch on photos."""
    photos, storage = given.photos, given.storage
    with tempfile.TemporaryDirectory() as scratch:
        write_photos(Path(scratch) / "photos", photos)
        found = subprocess.run(
            [sys.executable, "-c", TRAINING, f"{scratch}/photos", f"{scratch}/results", storage],
            env={**os.environ, "TFDISTILL_CACHE": f"{scratch}/cache"},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    seconds, peak = map(float, found.stdout.split()[-2:])
    decoded = photos * HEIGHT * WIDTH * 3
    return {
        "photos": photos,
        "storage": storage,
        "peak GB": peak / 1e9,
        "decoded GB": decoded / 1e9,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["crops", "memory"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--photos", type=int, default=20000)
    parser.add_argument("--storage", default="files", choices=["files", "memory"])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    chosen = {"crops": lambda: crops(given.repeats), "memory": lambda: memory(given)}
    found = chosen[given.what]()
    for name, value in found.items():
        if not isinstance(value, dict):
            print(f"{name:20} {value if isinstance(value, str) else round(value, 2)}")
    if given.output:
        given.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
