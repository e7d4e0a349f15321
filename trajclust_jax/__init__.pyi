"""What `trajclust_jax` has, for editors and type checkers; `__init__.py` reads the same lines."""

from trajclust_jax.clustering import CAAE as CAAE
from trajclust_jax.clustering import DEC as DEC
from trajclust_jax.clustering import BehaviourSet as BehaviourSet
from trajclust_jax.clustering import EmpoEM as EmpoEM
from trajclust_jax.clustering import PGKmeans as PGKmeans
from trajclust_jax.clustering import Sorl as Sorl
from trajclust_jax.clustering import SummaryKmeans as SummaryKmeans
from trajclust_jax.clustering import VAEKmeans as VAEKmeans
from trajclust_jax.data import DataError as DataError
from trajclust_jax.data import Dataset as Dataset
from trajclust_jax.data import Trajectories as Trajectories
from trajclust_jax.data import from_episodes as from_episodes
from trajclust_jax.data import load as load
from trajclust_jax.data import make as make
from trajclust_jax.data import validate as validate
from trajclust_jax.evaluation import act as act
from trajclust_jax.learners import AWAC as AWAC
from trajclust_jax.learners import BC as BC
from trajclust_jax.learners import BCQ as BCQ
from trajclust_jax.learners import C4 as C4
from trajclust_jax.learners import CQL as CQL
from trajclust_jax.learners import DR3 as DR3
from trajclust_jax.learners import EMPO as EMPO
from trajclust_jax.learners import IQL as IQL
from trajclust_jax.learners import PLAS as PLAS
from trajclust_jax.learners import SQIL as SQIL
from trajclust_jax.learners import TD3BC as TD3BC
from trajclust_jax.learners import BRACv as BRACv
from trajclust_jax.learners import Clustered as Clustered
from trajclust_jax.learners import LayerNorm as LayerNorm
from trajclust_jax.learners import LBRACv as LBRACv
from trajclust_jax.learners import Offline as Offline
from trajclust_jax.metrics import scores as scores
from trajclust_jax.training import Fit as Fit
from trajclust_jax.training import fit as fit

__version__: str
