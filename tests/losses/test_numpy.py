"""Every loss against its paper's formula, written once more in NumPy: loops, float64, one number
for the batch. Nothing here comes from the package but the losses under test.
"""

import math

import numpy as np
import pytest

from tfdistill import losses

LOGIT_SHAPES = [(1, 2), (4, 3), (6, 10), (3, 100)]
VECTORS_AND_MAPS = [  # teacher's and student's
    ((4, 5), (4, 5)),
    ((6, 3), (6, 8)),
    ((5, 4, 4, 3), (5, 4, 4, 7)),
    ((4, 6, 3, 2), (4, 2, 2, 5)),
    ((7, 2, 2, 3), (7, 4)),
]


def random_pair(teacher_shape, student_shape, scale=1.0, shift=0.0):
    generator = np.random.default_rng(sum(teacher_shape) + sum(student_shape))
    return [scale * generator.normal(size=s) + shift for s in (teacher_shape, student_shape)]


def check(loss, y_true, y_pred, expected):
    assert float(loss(y_true, y_pred)) == pytest.approx(expected, rel=2e-4, abs=1e-6)


def softmax(z):
    exponentials = [math.exp(value - max(z)) for value in z]
    return [value / sum(exponentials) for value in exponentials]


def kl_divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def mean_over_batch(function, *rows):
    return sum(map(function, *rows)) / len(rows[0])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("shape", LOGIT_SHAPES, ids=str)
class TestLogitLosses:
    def test_soft_targets(self, shape, temperature):
        teacher, student = random_pair(shape, shape, scale=3.0)

        def kl(z_t, z_s):
            return kl_divergence(softmax(z_t / temperature), softmax(z_s / temperature))

        mean = mean_over_batch(kl, teacher, student)
        check(losses.SoftTargets(temperature), teacher, student, temperature**2 * mean)
        check(losses.SoftTargets(temperature, scale_by_t2=False), teacher, student, mean)

    def test_cross_entropy(self, shape, temperature):
        teacher, student = random_pair(shape, shape, scale=3.0)

        def cross_entropy(z_t, z_s):
            p_t, p_s = softmax(z_t / temperature), softmax(z_s / temperature)
            return -sum(a * math.log(b) for a, b in zip(p_t, p_s, strict=True))

        mean = mean_over_batch(cross_entropy, teacher, student)
        loss = losses.SoftTargets(temperature, divergence="cross_entropy")
        check(loss, teacher, student, temperature**2 * mean)

    def test_standardised_soft_targets(self, shape, temperature):
        teacher, student = random_pair(shape, shape, scale=3.0, shift=5.0)

        def standardised(z):
            mean = sum(z) / len(z)
            deviation = math.sqrt(sum((value - mean) ** 2 for value in z) / (len(z) - 1))
            return (z - mean) / (1e-7 + deviation) / temperature

        def kl(z_t, z_s):
            return kl_divergence(softmax(standardised(z_t)), softmax(standardised(z_s)))

        expected = temperature**2 * mean_over_batch(kl, teacher, student)
        check(losses.SoftTargets(temperature, standardize=True), teacher, student, expected)

    @pytest.mark.parametrize("alpha, beta", [(1.0, 8.0), (0.5, 2.0)])
    def test_decoupled(self, shape, temperature, alpha, beta):
        teacher, student = random_pair(shape, shape, scale=3.0)
        labels = np.arange(shape[0]) * 3 % shape[1]

        def parts(z, label):
            p = softmax(z / temperature)
            # The authors' code takes 1000 off the target's logit.
            others = softmax(z / temperature - 1000.0 * (np.arange(len(z)) == label))
            return [p[label], sum(p) - p[label]], others

        def dkd(z_t, z_s, label):
            (b_t, q_t), (b_s, q_s) = parts(z_t, label), parts(z_s, label)
            return alpha * kl_divergence(b_t, b_s) + beta * kl_divergence(q_t, q_s)

        expected = temperature**2 * mean_over_batch(dkd, teacher, student, labels)
        loss = losses.Decoupled(temperature, alpha=alpha, beta=beta)
        check(loss, (teacher, labels), student, expected)

    @pytest.mark.parametrize("beta, gamma", [(1.0, 1.0), (2.0, 0.5)])
    def test_dist(self, shape, temperature, beta, gamma):
        teacher, student = random_pair(shape, shape, scale=3.0)
        y_t = np.array([softmax(z / temperature) for z in teacher])
        y_s = np.array([softmax(z / temperature) for z in student])

        def pearson_distance(u, v):
            u, v = u - u.mean(), v - v.mean()
            return 1 - (u * v).sum() / (np.linalg.norm(u) * np.linalg.norm(v) + 1e-8)

        inter = mean_over_batch(pearson_distance, y_s, y_t)
        intra = mean_over_batch(pearson_distance, y_s.T, y_t.T)
        expected = temperature**2 * (beta * inter + gamma * intra)
        check(losses.Dist(temperature, beta=beta, gamma=gamma), teacher, student, expected)


def pooled(features):
    return features if features.ndim == 2 else features.mean(axis=(1, 2))


def huber(a, b):
    difference = abs(a - b)
    return 0.5 * difference**2 if difference <= 1 else difference - 0.5


@pytest.mark.parametrize("teacher_shape, student_shape", VECTORS_AND_MAPS, ids=str)
class TestRelationsBetweenExamples:
    def test_similarity_preserving(self, teacher_shape, student_shape):
        teacher, student = random_pair(teacher_shape, student_shape)
        b = len(teacher)

        def similarities(features):
            flat = [row.ravel() for row in features]
            rows = [np.array([u @ v for v in flat]) for u in flat]
            return [row / math.sqrt((row**2).sum()) for row in rows]

        g_t, g_s = similarities(teacher), similarities(student)
        expected = sum(((g_t[i] - g_s[i]) ** 2).sum() for i in range(b)) / b**2
        check(losses.SimilarityPreserving(), teacher, student, expected)

    def test_relational_distance(self, teacher_shape, student_shape):
        teacher, student = random_pair(teacher_shape, student_shape)
        b = len(teacher)

        def distances(features):
            f = pooled(features)
            d = {(i, j): np.linalg.norm(f[i] - f[j]) for i in range(b) for j in range(b)}
            positive = [value for value in d.values() if value > 0]
            mean = sum(positive) / len(positive)
            return {pair: value / mean for pair, value in d.items()}

        d_t, d_s = distances(teacher), distances(student)
        expected = sum(huber(d_t[pair], d_s[pair]) for pair in d_t) / b**2
        check(losses.RelationalDistance(), teacher, student, expected)

    def test_relational_angle(self, teacher_shape, student_shape):
        teacher, student = random_pair(teacher_shape, student_shape)
        b = len(teacher)

        def cosine(f, i, j, k):
            u, v = f[j] - f[i], f[k] - f[i]
            return u @ v / max(np.linalg.norm(u), 1e-12) / max(np.linalg.norm(v), 1e-12)

        f_t, f_s = pooled(teacher), pooled(student)
        triples = [(i, j, k) for i in range(b) for j in range(b) for k in range(b)]
        expected = sum(huber(cosine(f_t, *t), cosine(f_s, *t)) for t in triples) / b**3
        check(losses.RelationalAngle(), teacher, student, expected)

    def test_probabilistic(self, teacher_shape, student_shape):
        teacher, student = random_pair(teacher_shape, student_shape)
        b, eps = len(teacher), 1e-7

        def probabilities(features):
            f = [row / (np.linalg.norm(row) + eps) for row in pooled(features)]
            s = [[(f[i] @ f[j] + 1) / 2 for j in range(b)] for i in range(b)]
            return [[value / sum(row) for value in row] for row in s]

        q_t, q_s = probabilities(teacher), probabilities(student)
        expected = (
            sum(
                q_t[i][j] * math.log((q_t[i][j] + eps) / (q_s[i][j] + eps))
                for i in range(b)
                for j in range(b)
            )
            / b**2
        )
        check(losses.Probabilistic(), teacher, student, expected)


@pytest.mark.parametrize("shape", [(1, 3), (4, 7), (3, 4, 2, 5)], ids=str)
def test_hints(shape):
    teacher, student = random_pair(shape, shape)
    pairs = list(zip(teacher.ravel(), student.ravel(), strict=True))
    expected = sum((a - b) ** 2 for a, b in pairs) / len(pairs)
    check(losses.Hints(), teacher, student, expected)


@pytest.mark.parametrize(
    "teacher_shape, student_shape",
    [
        ((3, 4, 4, 5), (3, 4, 4, 5)),
        ((3, 4, 6, 2), (3, 4, 6, 7)),
        ((2, 8, 8, 3), (2, 4, 4, 6)),
        ((2, 3, 2, 4), (2, 6, 8, 3)),
        ((2, 3, 8, 4), (2, 6, 4, 3)),
    ],
    ids=str,
)
def test_attention_transfer(teacher_shape, student_shape):
    teacher, student = random_pair(teacher_shape, student_shape, shift=0.5)
    height, width = np.minimum(teacher_shape[1:3], student_shape[1:3])

    def attention(features):
        rows, columns = features.shape[0] // height, features.shape[1] // width
        places = []
        for y in range(height):
            for x in range(width):
                block = features[y * rows : (y + 1) * rows, x * columns : (x + 1) * columns]
                places.append((block.mean(axis=(0, 1)) ** 2).mean())
        return np.array(places) / np.linalg.norm(places)

    def squared_difference(f_t, f_s):
        return ((attention(f_s) - attention(f_t)) ** 2).mean()

    expected = mean_over_batch(squared_difference, teacher, student)
    check(losses.AttentionTransfer(), teacher, student, expected)
