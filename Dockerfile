# `docker build -t resnet-recipes . && docker run --gpus all resnet-recipes` trains the digits, like `make train`.
# The newer torch, arm64, AWS and everything that a cluster needs: docs/clusters.md.
#
# python:slim rather than MosaicML's image, the newest of which has a different torch, is several times larger, and is
# no longer rebuilt. torch's wheels contain CUDA, cuDNN and NCCL, so the host only needs the NVIDIA Container Toolkit
# and a driver: 525 or newer, with STACK=next 580 or newer.
ARG PYTHON=3.11.11
# One of the next three lines, or any image with apt, a Python and its venv.
ARG BASE=python-${PYTHON}

# A digest is that of the index of all platforms, so the same line serves linux/arm64.
FROM python:3.11.11-slim-bookworm@sha256:081075da77b2b55c23c088251026fb69a7b2bf92471e491ff5fd75c192fd38e5 AS python-3.11.11
FROM python:3.12.12-slim-bookworm@sha256:593bd06efe90efa80dc4eee3948be7c0fde4134606dd40d8dd8dbcade98e669c AS python-3.12.12
FROM python:3.13.12-slim-bookworm@sha256:a58daefb915e1e03ad48f3ca4df8832065412c5c35cacb9d39f4229184de12b6 AS python-3.13.12

# hadolint ignore=DL3006
FROM ${BASE}
# g++ is for compile=true, with libjpeg-dev for the JPEG decoder; without the RDMA libraries NCCL falls back to TCP.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends --yes \
        g++ ibverbs-providers libibverbs1 libjpeg-dev librdmacm1 make rdma-core \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY Makefile requirements.txt constraints*.txt ./
COPY launch/lean launch/lean
# The lean environment of docs/clusters.md, in .venv.
ARG STACK=pinned
ARG TRACKERS="wandb tensorboard"
RUN PIP_NO_CACHE_DIR=1 make .venv/.run LEAN=1 VENV=.venv STACK="$STACK" TRACKERS="$TRACKERS" PYTHON=python3

COPY . .
# Any user may read everything, whatever the modes in the checkout, and write runs, data and cache, mounted or not.
# Touching .run marks the environment as complete; make only adds our own files.
RUN find . -path ./.venv -prune -o -exec chmod a+rX {} + \
    && touch .venv/.run && make .venv/.ours loaders/images/native/decode.so && test -f loaders/images/native/decode.so \
    && .venv/bin/python -m compileall -q -x '/[.]venv/|/tests/' . \
    && install --directory --mode 1777 runs data cache

# HOME holds the caches of matplotlib, Triton, CUDA, wandb and seek tables. USER is for torch, which looks up the user's
# name, and --user may name one that does not exist.
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 HOME=/app/cache USER=trainer \
    TORCHINDUCTOR_CACHE_DIR=/app/cache/inductor WANDB_DIR=/app/runs MLFLOW_TRACKING_URI=file:/app/runs/mlruns
ARG VERSION=1.0.0
ARG SOURCE=""
# A run records its commit, and .git is not in the image.
ARG COMMIT=""
ENV RECIPES_COMMIT=$COMMIT
LABEL org.opencontainers.image.title=resnet-recipes \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.source=$SOURCE \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$COMMIT
USER 1000:1000
# The launcher is process 1: after `docker stop`, it exits with 143 once the ranks have saved, where make exits with 2.
ENTRYPOINT []
CMD ["composer", "main.py", "yamls/digits.yaml"]
