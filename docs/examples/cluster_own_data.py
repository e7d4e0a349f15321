# %% [markdown]
# # Cluster your own data, and look at it
#
# Trajectories of whatever you have recorded, as NumPy arrays, become clusters of the policies that made them. Open this
# file as a notebook (editors that know percent cells do), or run it: `python docs/examples/cluster_own_data.py`.

# %%
import numpy as np

from trajclust_envs.plotting import draw_paths
from trajclust_jax import PGKmeans, fit, from_episodes
from trajclust_jax.clustering import suited_method
from trajclust_jax.data import returns
from trajclust_jax.metrics import adjusted_rand

# %% [markdown]
# ## The data
#
# Replace this cell by your own recordings: for each episode `t + 1` observations, `t` actions, `t` rewards, and whether
# the task ended it (rather than a time limit). Here, two walkers in the plane: one goes straight to the goal at (1, 1),
# the other goes right first. They differ in what they do, not in where they start.

# %%
rng = np.random.default_rng(0)


def walk(right_first: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """An episode of 25 steps, with noise."""
    places, actions = [rng.uniform(-0.2, 0.2, 2)], []
    for _ in range(25):
        left = np.array([1.0, 1.0]) - places[-1]
        aim = np.array([left[0], 0.0]) if right_first and left[0] > 0.1 else left
        actions.append(0.1 * aim / max(np.linalg.norm(aim), 0.1) + rng.normal(0, 0.02, 2))
        places.append(places[-1] + actions[-1])
    distances = np.linalg.norm(np.array(places[1:]) - 1, axis=1)
    return np.array(places), np.array(actions), -distances, False


made_by = np.arange(60) % 2  # known here, and used for nothing but the last cell
trajectories = from_episodes([walk(right_first=bool(policy)) for policy in made_by])
print(trajectories.observations.shape, trajectories.actions.shape)  # (60, 25, 2) each

# %% [markdown]
# ## The clustering
#
# `suited_method` takes the settings that fit the data (discrete or continuous actions, short or long episodes). All
# restarts, and all seeds, train in one program.

# %%
method = suited_method(PGKmeans, 2, trajectories)
outcome = fit(method, trajectories, seeds=2)
clusterings = outcome.result
assignments = np.asarray(clusterings.assignments)  # [S, N], one clustering a seed
print("sizes:", [np.bincount(each, minlength=2).tolist() for each in assignments])

# %% [markdown]
# ## Is it to be believed?
#
# Without labels, whether seeds agree tells most: an answer that is luck changes from seed to seed. The number is the
# adjusted Rand index, 1 for equal clusterings whatever their numbering. The posterior says how sure each trajectory is.

# %%
agreement = adjusted_rand(assignments[0], assignments[1])
sureness = np.asarray(clusterings.posterior)[0].max(1)
print(f"seeds agree to {agreement:.2f}; the least sure trajectory belongs to its cluster with {sureness.min():.3f}")

# %% [markdown]
# ## Look at it

# %%
episode_returns = returns(trajectories)
names = [f"cluster {k}: mean return {episode_returns[assignments[0] == k].mean():.1f}" for k in range(2)]
figure = draw_paths(trajectories.observations, trajectories.lengths, assignments[0], names=names)
figure.savefig("clusters.png", dpi=150)

# %% [markdown]
# ## Where labels are known
#
# They score, and are never seen by a method.

# %%
score = adjusted_rand(made_by, assignments[0])
print(f"adjusted Rand index with the true policies: {score:.2f}")
