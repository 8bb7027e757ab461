"""A compiled model whose network starts anew: tracing a train step costs more than a short run."""

import keras


class Reusable:
    """A compiled learner and the network in it, which can be set back to a fresh start.

    Training it again gives the weights that a newly compiled learner would get, to the bit.

    Args:
        learner: A compiled model: the network itself, or a Distiller around it.
        network: The network in it.

    Example:
        >>> reusable = Reusable(distiller, distiller.student)
        >>> distiller.fit(batches)
        >>> keras.utils.set_random_seed(1)
        >>> reusable.restart(build_student())
        >>> distiller.alpha = 0.5
        >>> distiller.fit(batches)  # without tracing
    """

    def __init__(self, learner: keras.Model, network: keras.Model):
        self.learner = learner
        self.network = network
        if not learner.optimizer.built:
            learner.optimizer.build(learner.trainable_variables)
        self._start = [variable.numpy() for variable in learner.optimizer.variables]

    def restart(self, fresh: keras.Model) -> None:
        """Begin with the weights of `fresh`, a new network of the same architecture."""
        pairs = zip(self.network.variables, fresh.variables, strict=True)
        for variable, new in pairs:  # with the states of random-number generators
            variable.assign(new)
        for variable, start in zip(self.learner.optimizer.variables, self._start, strict=True):
            variable.assign(start)
        self.learner.reset_metrics()
        self.learner.stop_training = False
