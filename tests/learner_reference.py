"""The learners' networks in NumPy float64, and small data."""

import jax
import jax.numpy as jnp
import numpy as np

from trajclust_jax.data import from_episodes
from trajclust_jax.learners import Batch

SIZE, D, A = 6, 3, 2


def some_batch(seed=1):
    keys = jax.random.split(jax.random.key(seed), 4)
    normal = lambda k, *shape: jax.random.normal(k, (SIZE, *shape))
    actions = jnp.tanh(normal(keys[1], A))
    return Batch(normal(keys[0], D), actions, normal(keys[2]), normal(keys[3], D), jnp.arange(SIZE) % 3 == 0)


def episodes(count=12, steps=5):
    rng = np.random.default_rng(0)
    return from_episodes(
        [
            (
                rng.normal(size=(steps + 1, D)).astype(np.float32),
                np.tanh(rng.normal(size=(steps, A))).astype(np.float32),
                rng.normal(size=steps).astype(np.float32),
                bool(n % 2),
            )
            for n in range(count)
        ]
    )


def wide(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def moved(tree, seed=9):
    """Other parameters of the same shape: zeros such as biases would hide mistakes."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    new = [x + 0.2 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, new)


def moved_state(state):
    return state.replace(params=moved(state.params), targets=moved(state.targets, 10))


def dense(x, layer):
    return np.asarray(x, np.float64) @ wide(layer["kernel"]) + wide(layer["bias"])


def hidden(x, layers):
    """Dense layers Dense_0, Dense_1, ... with ReLU."""
    for i in range(len(layers)):
        x = np.maximum(dense(x, layers[f"Dense_{i}"]), 0)
    return x


def critic(params, *inputs):
    layers = params["params"]
    last = len(layers) - 1
    x = hidden(np.concatenate(inputs, -1), {f"Dense_{i}": layers[f"Dense_{i}"] for i in range(last)})
    return dense(x, layers[f"Dense_{last}"])[..., 0]


def critics(params, *inputs):
    """`[2, ...]`."""
    members = [jax.tree.map(lambda x, i=i: x[i], params) for i in range(2)]
    return np.stack([critic(member, *inputs) for member in members])


def squashed(params, observations):
    """Mean and log std of `TanhGaussianActor`, SAC's or CQL's."""
    layers = params["params"]
    mean, log_std = np.split(dense(hidden(observations, layers["MLP_0"]), layers["Dense_0"]), 2, -1)
    if "log_std_offset" not in layers:
        return mean, np.clip(log_std, -5, 2)
    return mean, np.clip(wide(layers["log_std_multiplier"]) * log_std + wide(layers["log_std_offset"]), -20, 2)


def deterministic(params, observations):
    """`DeterministicActor`."""
    return np.tanh(dense(hidden(observations, params["params"]["MLP_0"]), params["params"]["Dense_0"]))


def gaussian(params, observations, bounded=True):
    """Mean and log std of `GaussianActor`."""
    layers = {name: layer for name, layer in params["params"].items() if name != "log_std"}
    last = len(layers) - 1
    x = hidden(observations, {f"Dense_{i}": layers[f"Dense_{i}"] for i in range(last)})
    mean = dense(x, layers[f"Dense_{last}"])
    return (np.tanh(mean) if bounded else mean), np.clip(wide(params["params"]["log_std"]), -5, 2)


def normal_log_prob(x, mean, log_std):
    x = np.asarray(x, np.float64)
    return (-0.5 * ((x - mean) / np.exp(log_std)) ** 2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)


def bellman(agent, params, batch, following):
    """Both critics' squared errors."""
    rewards, terminated = wide(batch.rewards), np.asarray(batch.terminated)
    wanted = rewards + agent.discount * np.where(terminated, 0, following)
    return ((critics(params, batch.observations, batch.actions) - wanted) ** 2).mean(1).sum()


def unit(x):
    return wide(x) / np.linalg.norm(wide(x), axis=-1, keepdims=True)


def embedded(params, inputs, embeddings, depth):
    """`networks.Embedded` and the last layer: two layers, layer normalisation, the direction, the rest."""
    layers = params["params"]["Embedded_0"]
    x = np.asarray(inputs, np.float64)
    for i in range(2):
        x = np.maximum(dense(x, layers[f"Dense_{i}"]), 0)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    x = x * wide(layers["LayerNorm_0"]["scale"]) + wide(layers["LayerNorm_0"]["bias"])
    x = np.concatenate([x, unit(embeddings)], -1)
    for i in range(2, depth):
        x = np.maximum(dense(x, layers[f"Dense_{i}"]), 0)
    return dense(x, params["params"]["Dense_0"])
