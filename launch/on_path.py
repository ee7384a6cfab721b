"""Find this checkout's modules from any folder; `make` installs a copy in .venv, which Python runs at startup.

`python -m NAME` puts the working folder first on the path, where a user's config.py or data.py would shadow ours. If
NAME is a program of this checkout and not of the working folder, Python is restarted without that folder (-P).
"""

import os
import sys


def defines(folder: str, name: str) -> bool:
    """Return whether a folder contains the module that `python -m NAME` runs."""
    path = os.path.join(folder, *name.split("."))
    return os.path.isfile(f"{path}.py") or os.path.isfile(os.path.join(path, "__main__.py"))


def extend_path(checkout: str) -> None:
    """Append a checkout, the folder of main.py, to the path and, for its programs, remove the working folder."""
    words = sys.orig_argv
    sys.path.append(checkout)
    if sys.argv[:1] == ["-m"] and "-m" in words[:-1] and not sys.flags.safe_path:
        name = words[words.index("-m") + 1]
        if defines(checkout, name) and not defines("", name):
            os.execv(sys.executable, [words[0], "-P", *words[1:]])


if __name__ == "resnet_recipes":  # the copy: CHECKOUT/VENV/lib/python3.X/site-packages/resnet_recipes.py
    extend_path(os.path.abspath(os.path.join(os.path.dirname(__file__), *[".."] * 4)))
