"""Algorithms, one per file. Installed as `rlkit.agents`."""

if __name__ != "rlkit.agents":
    raise ImportError("this folder is installed as 'rlkit.agents': use 'from rlkit.agents import ppo'")
