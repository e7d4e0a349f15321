"""Plain eager PyTorch of what scripts/benchmark.py times, as one would write it: references, not part of the suite."""

import copy
import itertools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import mse_loss, softplus

if torch.cuda.is_available():
    torch.set_default_device("cuda")
WHERE = ", on the GPU" if torch.cuda.is_available() else ""


def wait() -> None:
    """Until the device has computed what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def dense(*sizes: int) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.ReLU()] * (i > 0) + [nn.Linear(a, b)]
    return nn.Sequential(*layers)


class Mixture:
    """PG-Kmeans' policies, one network after another: gradient steps on their clusters, and scores of sampled steps."""

    def __init__(
        self, inputs, actions, num_members: int, num_clusters: int, batch_size: int, rate: float, floor: float
    ):
        self.inputs, self.actions = torch.tensor(inputs), torch.tensor(actions)
        self.share, self.num_clusters, self.batch_size = len(inputs) // num_clusters, num_clusters, batch_size
        self.floor = floor
        size = actions.shape[1]
        self.members = [dense(inputs.shape[1], 128, 128, 2 * size) for _ in range(num_members)]
        self.optimizers = [torch.optim.Adam(member.parameters(), rate) for member in self.members]

    def log_prob(self, member: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        mean, std = member(self.inputs[rows]).chunk(2, -1)
        policy = torch.distributions.Normal(mean, self.floor + softplus(std), validate_args=False)
        return policy.log_prob(self.actions[rows]).sum(-1)

    def improve(self, num_steps: int) -> None:
        """Gradient steps of every member."""
        for k, (member, optimizer) in list(enumerate(zip(self.members, self.optimizers, strict=True))) * num_steps:
            first = k % self.num_clusters * self.share
            rows = first + torch.randint(self.share, (self.batch_size,))
            optimizer.zero_grad()
            (-self.log_prob(member, rows).mean()).backward()
            optimizer.step()
        wait()

    @torch.no_grad()
    def score(self, num_trajectories: int, num_steps: int) -> None:
        """Every member's mean log-likelihood of so many steps of each trajectory."""
        rows = torch.randint(len(self.inputs), (num_trajectories * num_steps,))
        for member in self.members:
            self.log_prob(member, rows).reshape(num_trajectories, -1).mean(1)
        wait()


class Learner:
    """What the offline learners share."""

    def __init__(self, data, batch_size: int = 256, rate: float = 3e-4, target_rate: float = 0.005):
        self.data = [torch.tensor(x) for x in data]
        self.size, self.action_size = self.data[0].shape[1], self.data[1].shape[1]
        self.batch_size, self.rate, self.target_rate = batch_size, rate, target_rate
        self.critics = nn.ModuleList(dense(self.size + self.action_size, 256, 256, 1) for _ in range(2))
        self.targets = copy.deepcopy(self.critics)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), rate)
        self.steps = 0

    def improve(self, num_updates: int) -> None:
        """So many updates of all parameters."""
        for _ in range(num_updates):
            self.update()
        wait()

    def batch(self) -> list[torch.Tensor]:
        rows = torch.randint(len(self.data[0]), (self.batch_size,))
        return [x[rows] for x in self.data]

    @staticmethod
    def values(critics: nn.ModuleList, observations: torch.Tensor, actions: torch.Tensor) -> list[torch.Tensor]:
        return [critic(torch.cat([observations, actions], -1)).squeeze(-1) for critic in critics]

    def bellman(self, batch: list[torch.Tensor], following: torch.Tensor) -> torch.Tensor:
        observations, actions, rewards, _, terminated = batch
        wanted = (rewards + 0.99 * (1 - terminated) * following).detach()
        return sum(mse_loss(value, wanted) for value in self.values(self.critics, observations, actions))

    @staticmethod
    def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def lag(self, targets: nn.Module, now: nn.Module) -> None:
        for old, new in zip(targets.parameters(), now.parameters(), strict=True):
            old.lerp_(new, self.target_rate)


class TD3BC(Learner):
    """TD3+BC."""

    def __init__(self, data):
        super().__init__(data)
        self.actor = nn.Sequential(dense(self.size, 256, 256, self.action_size), nn.Tanh())
        self.actor_target = copy.deepcopy(self.actor)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), self.rate)

    def update(self) -> None:
        batch = self.batch()
        observations, actions, _, following, _ = batch
        with torch.no_grad():
            noise = (0.2 * torch.randn_like(actions)).clamp(-0.5, 0.5)
            target = (self.actor_target(following) + noise).clamp(-1, 1)
            value = torch.minimum(*self.values(self.targets, following, target))
        self.descend(self.critic_optimizer, self.bellman(batch, value))
        self.steps += 1
        if self.steps % 2 == 0:
            acted = self.actor(observations)
            value = self.critics[0](torch.cat([observations, acted], -1))
            weight = 2.5 / value.abs().mean().detach()
            self.descend(self.actor_optimizer, mse_loss(acted, actions) - weight * value.mean())
            self.lag(self.targets, self.critics)
            self.lag(self.actor_target, self.actor)


class IQL(Learner):
    """Implicit Q-learning."""

    def __init__(self, data):
        super().__init__(data)
        self.actor = nn.Sequential(dense(self.size, 256, 256, self.action_size), nn.Tanh())
        self.log_std = nn.Parameter(torch.zeros(self.action_size))
        self.actor_optimizer = torch.optim.Adam([*self.actor.parameters(), self.log_std], self.rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optimizer, 1_000_000)
        self.value = dense(self.size, 256, 256, 1)
        self.value_optimizer = torch.optim.Adam(self.value.parameters(), self.rate)

    def update(self) -> None:
        batch = self.batch()
        observations, actions, _, following, _ = batch
        with torch.no_grad():
            target = torch.minimum(*self.values(self.targets, observations, actions))
            value = self.value(following).squeeze(-1)
        advantage = target - self.value(observations).squeeze(-1)
        weight = torch.where(advantage > 0, 0.7, 0.3)
        self.descend(self.value_optimizer, (weight * advantage**2).mean())
        self.descend(self.critic_optimizer, self.bellman(batch, value))
        weight = (3 * advantage.detach()).exp().clamp(max=100)
        policy = torch.distributions.Normal(self.actor(observations), self.log_std.exp(), validate_args=False)
        self.descend(self.actor_optimizer, -(weight * policy.log_prob(actions).sum(-1)).mean())
        self.schedule.step()
        self.lag(self.targets, self.critics)


class CQL(Learner):
    """Conservative Q-learning on SAC, 10 actions from each source."""

    def __init__(self, data):
        super().__init__(data)
        self.actor = dense(self.size, 256, 256, 2 * self.action_size)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), self.rate)
        self.log_alpha = nn.Parameter(torch.zeros(()))
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], self.rate)

    def sample(self, observations: torch.Tensor, count: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = self.actor(observations).chunk(2, -1)
        if count is not None:
            mean, log_std = (x.expand(count, *x.shape) for x in (mean, log_std))
        policy = torch.distributions.Normal(mean, log_std.clamp(-5, 2).exp(), validate_args=False)
        drawn = policy.rsample()
        squash = 2 * (0.6931472 - drawn - softplus(-2 * drawn))
        return drawn.tanh(), (policy.log_prob(drawn) - squash).sum(-1)

    def update(self) -> None:
        batch = self.batch()
        observations, actions, _, following, _ = batch
        acted, log_prob = self.sample(observations)
        alpha = self.log_alpha.exp().detach()
        alpha_loss = -self.log_alpha * (log_prob.detach() - self.action_size).mean()
        actor_loss = (alpha * log_prob - torch.minimum(*self.values(self.critics, observations, acted))).mean()
        with torch.no_grad():
            target, _ = self.sample(following)
            value = torch.minimum(*self.values(self.targets, following, target))
            uniform = torch.rand(10, *actions.shape) * 2 - 1
            current, current_log_prob = self.sample(observations, 10)
            ahead, ahead_log_prob = self.sample(following, 10)
            proposed = torch.cat([uniform, current, ahead])
            density = torch.cat(
                [torch.full(uniform.shape[:2], -0.6931472 * self.action_size), current_log_prob, ahead_log_prob]
            )
        loss = self.bellman(batch, value)
        repeated = observations.expand(30, *observations.shape)
        of_data = self.values(self.critics, observations, actions)
        for elsewhere, here in zip(self.values(self.critics, repeated, proposed), of_data, strict=True):
            loss = loss + 5 * ((elsewhere - density).logsumexp(0) - here).mean()
        self.descend(self.alpha_optimizer, alpha_loss)
        self.descend(self.actor_optimizer, actor_loss)
        self.descend(self.critic_optimizer, loss)
        self.lag(self.targets, self.critics)


LEARNERS: dict[str, Callable[..., Learner]] = {"IQL": IQL, "TD3+BC": TD3BC, "CQL": CQL}
