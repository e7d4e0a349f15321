"""Proximal policy optimisation of an environment's experts: all of them in one jitted program.

Schulman et al., "Proximal Policy Optimization Algorithms" (2017), with generalised advantages (Schulman et al.,
2016). Every update collects one whole episode from each of E copies of the environment; a step after an episode's end
weighs nothing. An environment that trains experts here gives

    expert_names                                   K names
    expert_context(state, params) -> context       once an episode, from its first state
    expert_input(context, state) -> [F] float32    what the networks see
    expert_reward(index, before, after, params)    [] of one step (the environment's own reward is 0)
"""

import dataclasses
import functools
from importlib import resources
from pathlib import Path
from typing import Any

import distrax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from gymnax.environments import spaces
from gymnax.environments.environment import Environment


class Actor(nn.Module):
    """`[..., F]` to a policy: a categorical, or a Gaussian with a tanh mean and one log std an action dimension."""

    action_size: int
    discrete: bool
    features: tuple[int, ...] = (64, 64)

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        out = _tanh_layers(x, self.features, self.action_size, 0.01)
        if self.discrete:
            return distrax.Categorical(logits=nn.log_softmax(out))
        log_std = self.param("log_std", nn.initializers.constant(-0.5), (self.action_size,))
        return distrax.Independent(distrax.Normal(jnp.tanh(out), jnp.broadcast_to(jnp.exp(log_std), out.shape)), 1)


class Critic(nn.Module):
    """`[..., F] -> [...]` values."""

    features: tuple[int, ...] = (64, 64)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _tanh_layers(x, self.features, 1, 1.0)[..., 0]


def _tanh_layers(x, features, outputs, scale):
    for size in features:
        x = nn.tanh(nn.Dense(size, kernel_init=nn.initializers.orthogonal(2**0.5))(x))
    return nn.Dense(outputs, kernel_init=nn.initializers.orthogonal(scale))(x)


def actor_for(env: Environment, features: tuple[int, ...] = (64, 64)) -> Actor:
    """The actor of an environment's experts."""
    space = env.action_space(env.default_params)
    if isinstance(space, spaces.Discrete):
        return Actor(space.n, True, features)
    return Actor(space.shape[0], False, features)


@dataclasses.dataclass(frozen=True)
class PPO:
    """Settings."""

    updates: int = 200
    episodes: int = 64  # E, collected for each update
    epochs: int = 4
    minibatches: int = 4  # of whole episodes
    learning_rate: float = 1e-3  # Adam, falling to 0 in a straight line
    discount: float = 0.99
    trace: float = 0.95  # lambda of the generalised advantages
    clip: float = 0.2
    entropy: float = 0.01  # weight of the entropy bonus, falling to 0 as well
    value_weight: float = 0.5
    max_norm: float = 0.5  # of the gradient
    reward_scale: float = 0.1
    features: tuple[int, ...] = (64, 64)


def advantages(
    rewards: jax.Array, values: jax.Array, next_values: jax.Array, terminated: jax.Array, discount: float, trace: float
) -> jax.Array:
    """Generalised advantages `[T]` of one episode (unbatched); all arguments are `[T]`.

    An episode that the MDP ended (`terminated` at its last step) is worth nothing more; one that the time limit cut
    goes on with `next_values`. Steps after the end must hold zeros.
    """
    errors = rewards + discount * jnp.where(terminated, 0.0, next_values) - values

    def back(carry, error):
        carry = error + discount * trace * carry
        return carry, carry

    return jax.lax.scan(back, 0.0, errors, reverse=True)[1]


@functools.partial(jax.jit, static_argnames=("env", "config"))
def train(env: Environment, params: Any, config: PPO, key: jax.Array) -> tuple[Any, jax.Array]:
    """Trains all K experts at once; the key is consumed.

    Returns:
        The actors' parameters, leaves `[K, ...]`, and the learning curves: mean returns `[K, updates]`, in the
        experts' own rewards, of the episodes that each update learned from.
    """
    indices = jnp.arange(len(env.expert_names))
    return jax.vmap(lambda index, key: _train_one(env, params, config, index, key))(
        indices, jax.random.split(key, len(indices))
    )


def _train_one(env, env_params, config, index, key):
    actor, critic = actor_for(env, config.features), Critic(config.features)
    key_actor, key_critic, key_shape, key = jax.random.split(key, 4)
    _, state = env.reset_env(key_shape, env_params)
    example = env.expert_input(env.expert_context(state, env_params), state)
    example = jnp.zeros(example.shape, example.dtype)

    @jax.custom_batching.sequential_vmap  # no batched QR: see trajclust_jax.networks.dense.orthogonal
    def init(key_actor, key_critic):
        return {"actor": actor.init(key_actor, example), "critic": critic.init(key_critic, example)}

    params = init(key_actor, key_critic)
    gradient_steps = config.updates * config.epochs * config.minibatches
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_norm),
        optax.adam(optax.linear_schedule(config.learning_rate, 0.0, gradient_steps), eps=1e-5),
    )

    def episode(params, key):
        key_reset, key_steps = jax.random.split(key)
        _, state = env.reset_env(key_reset, env_params)
        context = env.expert_context(state, env_params)

        def step(carry, key):
            state, running = carry
            key_action, key_env = jax.random.split(key)
            seen = env.expert_input(context, state)
            policy = actor.apply(params["actor"], seen)
            action = policy.sample(seed=key_action)
            _, after, _, ends, _ = env.step_env(key_env, state, action, env_params)
            reward = config.reward_scale * env.expert_reward(index, state, after, env_params)
            value, next_value = (critic.apply(params["critic"], x) for x in (seen, env.expert_input(context, after)))
            out = (reward, value, next_value)
            out = [jnp.where(running, x, 0.0) for x in out]
            steps = (seen, action, policy.log_prob(action), *out, ends, running)
            return (after, running & ~(ends | env.is_truncated(after, env_params))), steps

        keys = jax.random.split(key_steps, env.default_params.max_steps_in_episode)
        _, steps = jax.lax.scan(step, (state, jnp.bool_(True)), keys)
        seen, actions, log_probs, rewards, values, next_values, ends, valid = steps
        advantage = advantages(rewards, values, next_values, ends, config.discount, config.trace)
        batch = (seen, actions, log_probs, advantage, advantage + values, valid)
        return batch, rewards.sum() / config.reward_scale

    def loss(params, batch, entropy):
        seen, actions, log_probs, advantage, targets, valid = batch
        mean = lambda x: jnp.where(valid, x, 0.0).sum() / jnp.maximum(valid.sum(), 1)
        centred = advantage - mean(advantage)
        advantage = centred / (jnp.sqrt(mean(centred**2)) + 1e-8)
        policy = actor.apply(params["actor"], seen)
        ratio = jnp.exp(policy.log_prob(actions) - log_probs)
        clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
        gain = mean(jnp.minimum(ratio * advantage, clipped * advantage))  # Eq. 7
        error = mean((critic.apply(params["critic"], seen) - targets) ** 2)
        return -gain + config.value_weight * error - entropy * mean(policy.entropy())

    def minibatch(entropy, carry, batch):
        params, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(params, batch, entropy), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def update(carry, inputs):
        number, key = inputs
        key_collect, key_shuffle = jax.random.split(key)
        train_on = functools.partial(minibatch, config.entropy * (1 - number / config.updates))
        data, returns = jax.vmap(episode, (None, 0))(carry[0], jax.random.split(key_collect, config.episodes))

        def epoch(carry, key):
            order = jax.random.permutation(key, config.episodes).reshape(config.minibatches, -1)
            return jax.lax.scan(train_on, carry, jax.tree.map(lambda x: x[order], data))

        carry, _ = jax.lax.scan(epoch, carry, jax.random.split(key_shuffle, config.epochs))
        return carry, returns.mean()

    carry = (params, optimizer.init(params))
    inputs = jnp.arange(config.updates), jax.random.split(key, config.updates)
    (params, _), curve = jax.lax.scan(update, carry, inputs)
    return params["actor"], curve


def save_weights(path: Path, params: Any) -> None:
    """Actor parameters to an npz file of float16 arrays, one a leaf."""
    flat = flatten_dict(params, sep="/")
    np.savez_compressed(path, **{name: np.asarray(leaf, np.float16) for name, leaf in flat.items()})


@functools.cache
def load_weights(name: str) -> Any:
    """The shipped actors of an environment, leaves `[K, ...]` float32 (NumPy); read once."""
    with (
        resources.files("trajclust_envs").joinpath("weights", f"{name}.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        return unflatten_dict({name: arrays[name].astype(np.float32) for name in arrays.files}, sep="/")
