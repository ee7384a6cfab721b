"""Find this checkout's modules from any folder; `make` installs a copy in .venv, which Python runs when it starts.

`python -m NAME` puts the working folder first, where a config.py or a data.py of the user's own would replace ours. If
NAME is a program of this checkout and not of the working folder, Python is started again without that folder (-P).
"""

import os
import sys


def defines(folder: str, name: str) -> bool:
    """Whether a folder holds the module that `python -m NAME` runs."""
    path = os.path.join(folder, *name.split("."))
    return os.path.isfile(f"{path}.py") or os.path.isfile(os.path.join(path, "__main__.py"))


def extend_path(checkout: str) -> None:
    """Put a checkout last on the path; for one of its programs, take the working folder off.

    Args:
        checkout: the folder that main.py is in.
    """
    words = sys.orig_argv
    sys.path.append(checkout)
    if sys.argv[:1] == ["-m"] and "-m" in words[:-1] and not sys.flags.safe_path:
        name = words[words.index("-m") + 1]
        if defines(checkout, name) and not defines("", name):
            os.execv(sys.executable, [words[0], "-P", *words[1:]])


if __name__ == "resnet_recipes":  # the copy: CHECKOUT/.venv/lib/python3.11/site-packages/resnet_recipes.py
    extend_path(os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 4)))
