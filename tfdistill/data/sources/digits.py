"""The 1,797 handwritten digits of scikit-learn, 8x8 and grey: a data set that is always at hand.

Their values 0..16 are scaled to 0..255. 797 of them, always the same, are the test set.
"""

import numpy as np

from tfdistill.config import DataConfig
from tfdistill.data import decode, splits
from tfdistill.data.dataset import Examples, Reader, Source
from tfdistill.utils import checks

TEST_EXAMPLES = 797


def read(config: DataConfig, _: str = "") -> Source:
    """Return 1,000 training and 797 test digits."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise checks.UsageError(
            f"data.source 'digits' needs scikit-learn ({error}). Install it: "
            f"pip install scikit-learn."
        ) from None
    values, labels = load_digits(return_X_y=True)
    pixels = np.round(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    pixels = decode.fit(pixels, config.image_size)
    test = splits.stratified(labels, TEST_EXAMPLES, seed=0, stream=splits.TEST)
    train = splits.without(test, len(labels))
    return Source(
        class_names=tuple(map(str, range(10))),
        train=Examples.numbered(pixels[train], labels[train]),
        test=Examples.numbered(pixels[test], labels[test]),
    )


READER = Reader(read)
