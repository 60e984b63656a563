"""Reference problems with known answers."""

from .tabular import TabularMDP, chain_mdp, random_mdp

__all__ = ["TabularMDP", "chain_mdp", "random_mdp"]
