"""Acting: a policy and a vector environment make rollouts."""
