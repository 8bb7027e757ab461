"""Networks of few bits: quantisation-aware training, and the network that is deployed.

`Distiller(student=quantize_aware(student), teacher=teacher)` trains a student whose weights and
activations are rounded as LiteRT rounds them; `deploy` folds what it has learned into what the
converter takes. Jacob et al. 2018 (arXiv 1712.05877), sections 2 and 3.
"""

from tfdistill.utils.lazy import lazy_names

_LAZY = {
    "quantize_aware": "tfdistill.quantization.aware",
    "calibrate": "tfdistill.quantization.aware",
    "deploy": "tfdistill.quantization.deployment",
}

__all__ = ["calibrate", "deploy", "quantize_aware"]  # noqa: F822

__getattr__, __dir__ = lazy_names(__name__, _LAZY)
