# The image of doctor, initial, sft, dpo and respond: CUDA 12.8 through the wheels of PyPI, no vendor base image (at most 9 GB).
#   docker build -f docker/cuda.Dockerfile -t cai-cuda .
# Everything installed comes from requirements/cuda.lock by hash or from signed Debian packages; nothing else is fetched.
# A build secret `ca` (a CA bundle) is only for networks that re-sign TLS; nothing of it stays in the image.
ARG BASE=debian:trixie-slim

# torch.compile builds its kernels on the user's GPU: gcc and Python's headers are for it alone.
FROM ${BASE} AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean && \
    apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates libgomp1 python3 \
      gcc libc6-dev libpython3-dev >/dev/null && \
    find / -xdev -perm /6000 -type f -exec chmod a-s {} + && \
    rm -rf /var/log/* /var/cache/ldconfig/aux-cache

FROM base AS pip
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null && \
    python3 -m venv /opt/pip

FROM base AS runtime
RUN groupadd -g 10001 cai && useradd -u 10001 -g 10001 -M -d /tmp -s /usr/sbin/nologin cai && \
    install -d -o 10001 -g 10001 /runs && \
    rm -rf /var/log/* /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow-
# pip is lent by the stage above and never in the image; one layer, so that the disk holds these 8 GB once. Tests, C++
# headers and static libraries go, since what torch.compile builds on a GPU needs none of them; unchecked bytecode stays
# valid whatever time a layer carries.
RUN --mount=type=bind,from=pip,source=/opt/pip,target=/opt/pip --mount=type=secret,id=ca \
    --mount=type=bind,source=requirements/cuda.lock,target=/tmp/lock \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 -m venv --without-pip /opt/venv && \
    /opt/pip/bin/pip --python /opt/venv/bin/python install -q --no-cache-dir --no-compile --disable-pip-version-check \
      --only-binary :all: --no-deps --require-hashes -r /tmp/lock && \
    cd /opt/venv/lib/python3*/site-packages && \
    rm -rf matplotlib/tests pandas/tests pyarrow/tests pyarrow/include pyarrow/src torch/include nvidia/*/include && \
    find nvidia torch -name '*.a' -delete && \
    find numpy sympy -depth -type d -name tests -exec rm -rf {} + && \
    python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash .
# The engine refuses a driver older than CUDA 12 (525) at start, instead of torch failing late.
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility NVIDIA_REQUIRE_CUDA=cuda>=12.0
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/app HOME=/tmp USER=cai LOGNAME=cai CAI_RUNS=/runs
RUN printf '#!/bin/sh\nexec python -m jobs "$@"\n' >/opt/venv/bin/cai && chmod 755 /opt/venv/bin/cai
COPY --chmod=755 requirements /app/requirements
COPY --chmod=755 constitutions /app/constitutions
COPY --chmod=755 recipes /app/recipes
COPY --chmod=755 jobs /app/jobs
RUN python -m compileall -q --invalidation-mode unchecked-hash /app/jobs
WORKDIR /app
USER 10001:10001
HEALTHCHECK NONE
ENTRYPOINT ["python", "-m", "jobs"]
ARG GIT_COMMIT=
ENV CAI_GIT_COMMIT=${GIT_COMMIT}
LABEL org.opencontainers.image.title="cai-cuda" org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${GIT_COMMIT}"
