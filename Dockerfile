# The entrypoint as an image to build yours on: FROM it, add your app and its migrations, set CMD.
# The base is an argument, so that it builds where only a home-made one exists.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
COPY pyproject.toml README.md LICENSE entrypoint.pth /src/
COPY scripts /src/scripts
COPY entrypoint /src/entrypoint
COPY migrator /src/migrator
RUN python3 -m venv /opt/entrypoint \
 && /opt/entrypoint/bin/pip install --no-cache-dir --disable-pip-version-check /src

FROM ${BASE}
LABEL org.opencontainers.image.title="entrypoint" \
      org.opencontainers.image.description="Starts the app at once and migrates its Postgres database beside it" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/entrypoint /opt/entrypoint
COPY migrations /app/migrations
# Not by PATH alone: a login shell sets its own.
RUN ln -s /opt/entrypoint/bin/entrypoint /opt/entrypoint/bin/migrator /usr/local/bin/
ENV PATH=/opt/entrypoint/bin:$PATH NODE_ENV=production
WORKDIR /app
USER 10001
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=30s CMD ["/opt/entrypoint/bin/entrypoint", "--healthcheck"]
ENTRYPOINT ["/opt/entrypoint/bin/entrypoint", "--"]
CMD ["python3", "-m", "http.server", "8000"]
