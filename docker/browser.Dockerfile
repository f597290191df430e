# A browser for the tests of the audit page: Debian's chromium behind its WebDriver. No run ever uses this image.
#   docker build -f docker/browser.Dockerfile -t cai-browser docker
ARG BASE=debian:trixie-slim
FROM ${BASE}
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    rm -f /etc/apt/apt.conf.d/docker-clean && \
    apt-get update -qq && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      chromium chromium-driver fonts-dejavu-core >/dev/null
ENV HOME=/tmp
USER nobody
ENTRYPOINT ["chromedriver", "--port=9515", "--allowed-ips=", "--allowed-origins=*"]
