"""Plain NumPy of what scripts/benchmark.py times, as one would write it: a reference, not part of the suite."""

import itertools

import numpy as np

WHERE = ""


class Network:
    """Linear layers with ReLU between them, trained by Adam; float32."""

    def __init__(self, sizes: tuple[int, ...], rate: float, rng: np.random.Generator):
        self.params = []
        for a, b in itertools.pairwise(sizes):
            self.params += [rng.uniform(-1, 1, (a, b)).astype(np.float32) / np.float32(a**0.5), np.zeros(b, np.float32)]
        self.moments = [(np.zeros_like(p), np.zeros_like(p)) for p in self.params]
        self.rate, self.steps = rate, 0

    def forward(self, inputs: np.ndarray) -> list[np.ndarray]:
        """What every layer sees, and what the last one gives."""
        seen = [inputs]
        for i in range(0, len(self.params), 2):
            out = seen[-1] @ self.params[i] + self.params[i + 1]
            seen.append(out if i + 2 == len(self.params) else np.maximum(out, 0))
        return seen

    def backward(self, seen: list[np.ndarray], gradient: np.ndarray) -> list[np.ndarray]:
        """Gradients of the parameters, from that of the output."""
        gradients = []
        for i in reversed(range(len(seen) - 1)):
            gradients[:0] = [seen[i].T @ gradient, gradient.sum(0)]
            gradient = (gradient @ self.params[2 * i].T) * (seen[i] > 0) if i else None
        return gradients

    def descend(self, gradients: list[np.ndarray]) -> None:
        """Adam."""
        self.steps += 1
        for p, g, (m, v) in zip(self.params, gradients, self.moments, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p -= self.rate * (m / (1 - 0.9**self.steps)) / (np.sqrt(v / (1 - 0.999**self.steps)) + 1e-8)


class Mixture:
    """PG-Kmeans' policies, one network after another: gradient steps on their clusters, and scores of sampled steps."""

    def __init__(
        self, inputs, actions, num_members: int, num_clusters: int, batch_size: int, rate: float, floor: float
    ):
        self.inputs, self.actions, self.floor = inputs, actions, floor
        self.share, self.num_clusters, self.batch_size = len(inputs) // num_clusters, num_clusters, batch_size
        self.rng = np.random.default_rng(0)
        sizes = (inputs.shape[1], 128, 128, 2 * actions.shape[1])
        self.members = [Network(sizes, rate, self.rng) for _ in range(num_members)]

    def log_prob(self, output: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of the actions of some rows under a network's output; and its gradient in the output."""
        mean, raw = np.split(output, 2, axis=1)
        std = self.floor + np.logaddexp(raw, 0)
        z = (self.actions[rows] - mean) / std
        value = (-0.5 * z * z - np.log(std) - 0.5 * np.float32(np.log(2 * np.pi))).sum(1)
        return value, np.concatenate([z / std, (z * z - 1) / std / (1 + np.exp(-raw))], axis=1)

    def improve(self, num_steps: int) -> None:
        """Gradient steps of every member."""
        for k, member in list(enumerate(self.members)) * num_steps:
            rows = k % self.num_clusters * self.share + self.rng.integers(self.share, size=self.batch_size)
            seen = member.forward(self.inputs[rows])
            member.descend(member.backward(seen, -self.log_prob(seen[-1], rows)[1] / len(rows)))

    def score(self, num_trajectories: int, num_steps: int) -> None:
        """Every member's mean log-likelihood of so many steps of each trajectory."""
        rows = self.rng.integers(len(self.inputs), size=num_trajectories * num_steps)
        for member in self.members:
            self.log_prob(member.forward(self.inputs[rows])[-1], rows)[0].reshape(num_trajectories, -1).mean(1)
