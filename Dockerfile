# The same two commands in a container: `docker build --build-arg COMMIT=$(git rev-parse HEAD) -t resnet-recipes . && docker run --gpus all resnet-recipes`.
#
# python:3.11-slim rather than MosaicML's image, the newest of which has a different torch, is several times larger, and
# is no longer rebuilt. torch's wheels contain CUDA 12.6, cuDNN and NCCL, so the host only needs a driver (525 or newer)
# and the NVIDIA Container Toolkit.
FROM python:3.11.11-slim-bookworm AS build

# The compiler, for the few dependencies without wheels and for the JPEG decoder, stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends --yes gcc libc6-dev libjpeg62-turbo-dev make && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY requirements.txt constraints.txt ./
RUN python -m venv .venv && .venv/bin/pip install --no-cache-dir --constraint constraints.txt --requirement requirements.txt wandb tensorboard mlflow comet-ml
COPY Makefile ./
COPY loaders/images/native/decode.c loaders/images/native/huffman.h loaders/images/native/huffman_tables.h \
     loaders/images/native/random.h loaders/images/native/reader.h loaders/images/native/resample.h \
     loaders/images/native/scan.h loaders/images/native/seek_table.h loaders/images/native/self_test.h \
     loaders/images/native/weights.h loaders/images/native/
RUN make loaders/images/native/decode.so && test -f loaders/images/native/decode.so

FROM python:3.11.11-slim-bookworm
# make is for `make train` and `make test`; libjpeg-turbo is for the JPEG decoder.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends --yes libjpeg62-turbo make && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 trainer && install --directory --owner trainer /app
WORKDIR /app
COPY --from=build --chown=trainer /app/.venv .venv
COPY --chown=trainer . .
COPY --from=build --chown=trainer /app/loaders/images/native/decode.so loaders/images/native/
# The environment is complete, so mark it as up to date; the Makefile only adds our own files.
RUN touch .venv/.run && make .venv/.ours && install --directory --owner trainer runs data
USER trainer
# A run records its commit, and .git is not in the image.
ARG COMMIT=""
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 RECIPES_COMMIT=$COMMIT
CMD ["make", "train"]
