# %% [markdown]
# # Learn from a cluster, and evaluate
#
# Data of a mediocre and of a good policy: cloning everything gives something between them, cloning the better cluster
# the good one. Run it (a minute): `python docs/examples/learn_from_a_cluster.py`, or open it as a notebook.

# %%
import jax
import numpy as np

from trajclust_jax import BC, Clustered, Offline, PGKmeans, fit, make
from trajclust_jax.clustering import suited_method
from trajclust_jax.data import returns
from trajclust_jax.evaluation import mujoco_returns

# %% [markdown]
# ## The data, and its clusters
#
# 20 episodes of each of two policies in MuJoCo's Hopper, made here. Your own data are read by
# `trajclust_jax.load("file.hdf5")`, whose `.trajectories` take the place of these.

# %%
dataset = make("hopper-medium-expert", size=20, seed=0)
trajectories = dataset.trajectories
clustering = fit(suited_method(PGKmeans, 2, trajectories), trajectories, seeds=1).result
assignments = np.asarray(clustering.assignments)[0]

# %% [markdown]
# ## The better cluster
#
# By what its trajectories are worth; nobody has said who made them.

# %%
worth = returns(trajectories)
means = [worth[assignments == k].mean() for k in range(2)]
best = int(np.argmax(means))
print("mean returns of the clusters:", np.round(means), "the better one:", best)

# %% [markdown]
# ## Two learners, side by side
#
# `Clustered` trains a learner for each group, all seeds in one program. Group 0 is everything, group 1 the better
# cluster; trajectories stand twice, since each may be of one group only.

# %%
twice = jax.tree.map(lambda x: np.concatenate([np.asarray(x)] * 2), trajectories)
groups = np.concatenate([np.zeros(len(assignments), int), np.where(assignments == best, 1, -1)])
offline = Offline(BC(action_size=trajectories.action_size, updates=4_000), block=500)
policies = fit(offline, Clustered(twice, groups, 2), seeds=2).result

# %% [markdown]
# ## Evaluate
#
# Five episodes of every policy, without noise, all from the same first states.

# %%
found = mujoco_returns("hopper", offline.learner, policies, num_episodes=5, seed=0).mean(-1)  # [S, 2]
everything, from_cluster = found.mean(0)
print(f"mean return of BC on everything {everything:.0f}, on the better cluster {from_cluster:.0f}")
