"""Teachers' logits, computed once for every view of every image and stored for all students."""

from tfdistill.utils.lazy import lazy_names

_PUBLIC = dict.fromkeys(
    ("Teacher", "TeacherCache", "build", "fingerprint", "open_cache"),
    "tfdistill.teacher_cache.cache",
)

__all__ = [*_PUBLIC]

__getattr__, __dir__ = lazy_names(__name__, _PUBLIC)
