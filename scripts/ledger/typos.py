"""Words typed with one slip of the finger: an option, one of its choices, an agent, an environment, a network, a verb.

Survived: it is refused, and the right word is named. A slip that makes another word that exists is none.
"""

from __future__ import annotations

import contextlib
import io
import random
import re
import string

from rlkit.cli.main import VERBS, main
from rlkit.config import registry
from rlkit.config.compose import compose, options
from rlkit.options import ConfigError
from scripts.ledger.trial import Task, Trial, Trials

AGENTS = ("ppo", "reinforce", "dqn", "ddpg")


def trials(task: Task) -> Trials:
    words = vocabulary()
    known = {word for _, word, _ in words}
    tried: set[str] = set()
    while len(tried) < (60 if task.short else 500):
        before, word, after = task.dice.choice(words)
        typed = slip(word, task.dice)
        command = f"{before}{typed}{after}"
        if typed in known or command in tried:
            continue
        tried.add(command)
        said = refusal(command)
        if said is None:
            yield Trial(command, False, "accepted")
        else:
            named = re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-])", said.partition("allowed:")[0])
            yield Trial(command, named is not None, said)


def vocabulary() -> list[tuple[str, str, str]]:
    """(what stands before a word, the word, what stands after it) of everything that has a name and is typed."""
    found = {
        (f"train agent={agent} ", name, "=1")
        for agent in AGENTS
        for name in (each.name for each, _ in options([f"agent={agent}"]))
        if len(name) > 3
    }
    for option, group in (("agent", "agents"), ("env", "environments"), ("network", "networks")):
        found |= {(f"train {option}=", name, "") for name in registry.names(group) if len(name) > 3}
    for key, choices in (("optim.name", "adam adamw rmsprop"), ("network.activation", "tanh relu")):
        found |= {(f"train {key}=", choice, "") for choice in choices.split()}
    return sorted(found | {("", verb, "") for verb in VERBS})


def slip(word: str, dice: random.Random) -> str:
    """A word with one letter left out, doubled, exchanged with the next one, or taken for another."""
    while True:
        at = dice.randrange(len(word))
        letter = dice.choice(string.ascii_lowercase)
        kinds = (
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
            word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :],
            word[:at] + letter + word[at + 1 :],
        )
        found = dice.choice(kinds)
        if found != word and re.fullmatch(r"[a-z][\w.\-]*\w", found) and ".." not in found:
            return found


def refusal(command: str) -> str | None:
    """What is said to a command that is refused; None where it would begin."""
    verb, *words = command.split()
    if verb == "train":
        try:
            compose(words)
        except ConfigError as error:
            return str(error)
        return None
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        code = main([verb, *words])
    return said.getvalue() if code else None
