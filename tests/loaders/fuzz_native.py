"""Fuzz the native decoder with libFuzzer for reads and writes out of bounds. Needs clang:

    apt-get install clang libclang-rt-14-dev libjpeg62-turbo-dev
    python -m tests.loaders.fuzz_native -max_total_time=1200          # JPEGs, and seek tables of them
    python -m tests.loaders.fuzz_native table -max_total_time=1200    # seek tables of one JPEG

The other arguments are libFuzzer's. Interesting inputs are kept in runs/fuzz/corpus (or table), crashes in runs/fuzz.
Only our own C is instrumented; in libjpeg-turbo, which has its own fuzzers, only allocations are checked.
"""

import io
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_images

HERE = Path(__file__).parent
FOLDER = Path("runs/fuzz")
FLAGS = ["-std=gnu11", "-g", "-O1", "-DLARGE=16", "-pthread"]
FLAGS += ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"]
LIMITS = ["-max_len=6000", "-timeout=10", "-malloc_limit_mb=600", "-rss_limit_mb=2000"]


def write_seeds(folder: Path) -> None:
    """Write small JPEGs of several kinds, each after 16 bytes that choose a view."""
    photo = Image.fromarray(load_sample_images().images[0])
    for size, subsampling, progressive, mode in itertools.product((8, 70), (0, 1, 2), (False, True), ("RGB", "L")):
        file = io.BytesIO()
        image = photo.crop((100, 100, 100 + size, 190)).convert(mode)
        options = {"subsampling": subsampling, "progressive": progressive, "restart_marker_rows": subsampling}
        image.save(file, "JPEG", quality=40, **options)
        view = bytes((60, 30, 150, 200, 40 // (1 + 3 * progressive), 50, 3, 2, 90, 90, 1, subsampling))
        changes = bytes(subsampling * (3 if size == 8 else 40))
        choices = view + bytes((subsampling, size % 3, len(changes), 0))
        (folder / f"{size}-{subsampling}-{progressive}-{mode}").write_bytes(choices + changes + file.getvalue())


def main(words: list[str]) -> int:
    """Build and run the fuzzer; return its exit status."""
    clang = shutil.which("clang") or shutil.which("clang-14")
    if clang is None:
        print("there is no clang: apt-get install clang libclang-rt-14-dev", file=sys.stderr)
        return 2
    tables_alone = words[:1] == ["table"]
    corpus = FOLDER / ("table" if tables_alone else "corpus")
    corpus.mkdir(parents=True, exist_ok=True)
    write_seeds(corpus)
    fuzzer = corpus.with_suffix(".fuzzer")
    flags = [*FLAGS, "-DTABLE_ALONE"] if tables_alone else FLAGS
    subprocess.run([clang, *flags, "-o", str(fuzzer), str(HERE / "native_fuzz.c"), "-ljpeg", "-lm"], check=True)
    command = [str(fuzzer), str(corpus), f"-artifact_prefix={FOLDER}/", *LIMITS, *words[tables_alone:]]
    return subprocess.run(command, env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
