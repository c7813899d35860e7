# The entrypoint as an image to build yours on: FROM it, add your app and its migrations, set CMD. Or take one
# directory out of it, whatever your base is: COPY --from=... /opt/entrypoint /opt/entrypoint
# No syntax that only BuildKit knows; the bases are arguments, so that it builds where only home-made ones exist.
#
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION=$(git rev-parse HEAD) \
#     --build-arg CREATED=$(git log -1 --format=%cI) --tag entrypoint .
#   docker build --target demo ...     with migrations to see applied

# Where it is made: a Debian, with or without a Python of its own. Its glibc and Python go into the bundle.
ARG BASE=debian:bookworm-slim
# What it runs on: anything that your app does.
ARG RUNTIME=${BASE}

FROM ${BASE} AS build
WORKDIR /src
COPY bundle bundle
RUN apt-get update -qq \
 && { command -v python3 >/dev/null || apt-get install -y -qq --no-install-recommends python3-venv; } \
 && packages=$(python3 -m bundle --missing-packages) \
 && { [ -z "$packages" ] || apt-get install -y -qq --no-install-recommends $packages; }
COPY pyproject.toml README.md LICENSE entrypoint.pth ./
COPY scripts scripts
COPY entrypoint entrypoint
COPY migrator migrator
RUN python3 -m venv /build && /build/bin/python -m bundle /opt/entrypoint \
 && mkdir /links && ln -s /opt/entrypoint/bin/entrypoint /opt/entrypoint/bin/migrator /links/

FROM ${RUNTIME} AS runtime
COPY --from=build /opt/entrypoint /opt/entrypoint
# Not by PATH alone: a login shell sets its own. Copied, since there may be no shell to RUN anything with.
COPY --from=build /links /usr/local/bin
# Behind what is there: a python3 of the base is the app's own.
# `docker stop` kills after 10 seconds, and we must have come to an end by then.
ENV PATH=$PATH:/opt/entrypoint/bin NODE_ENV=production ENTRYPOINT_STOP_GRACE=8
WORKDIR /app
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30s --timeout=10s CMD ["entrypoint", "--healthcheck"]
ENTRYPOINT ["entrypoint", "--"]
# Nothing that serves: an image that forgets its own CMD would show what lies in /app to everybody.
CMD ["--help"]
# Last: they differ from build to build, and what follows isn't taken from the cache.
ARG RUNTIME
ARG VERSION=unknown
ARG SOURCE=unknown
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="entrypoint" \
      org.opencontainers.image.description="Starts the app at once and migrates its Postgres database beside it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${RUNTIME}"

FROM runtime AS demo
COPY migrations migrations
CMD ["python3", "-m", "http.server", "8000"]

# The last one is what `docker build` makes: without the demo's migrations, which would be applied beside yours.
FROM runtime
