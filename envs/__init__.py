"""Environments and the vector adapters around them. Installed as `rlkit.envs`."""

if __name__ != "rlkit.envs":
    raise ImportError("this folder is installed as 'rlkit.envs': use 'from rlkit.envs import make_vec'")
