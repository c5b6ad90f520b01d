# Two stages: the binary is built with a full toolchain and runs on a small base as a user without rights.
FROM rust:1.95-bookworm AS build
# zlib-ng, which inflates the metered side copy of compressed answers, is built with cmake.
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY benches benches
COPY config config
COPY migrations migrations
COPY src src
RUN cargo build --release --locked --bin tollgate && strip target/release/tollgate

FROM debian:bookworm-slim
# The roots that providers' certificates are checked against.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 tollgate \
    && useradd --system --uid 10001 --gid 10001 --home-dir /data --shell /usr/sbin/nologin tollgate \
    && install --directory --owner=tollgate --group=tollgate --mode=0700 /data
COPY --from=build /src/target/release/tollgate /usr/local/bin/tollgate
COPY LICENSE config/NOTICE /usr/share/doc/tollgate/
# By number: an orchestrator that lets nobody run as root cannot tell who a name is.
USER 10001:10001
WORKDIR /data
VOLUME /data
ENV TOLLGATE_ENV=prod \
    TOLLGATE_LISTEN=0.0.0.0:8080 \
    TOLLGATE_DATA_DIR=/data
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["tollgate", "health"]
# SIGTERM drains, for as long as shutdown.drain_limit (30 s). Docker kills after ten seconds unless told otherwise:
# docker stop --timeout 40, stop_grace_period, terminationGracePeriodSeconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["tollgate"]
CMD ["serve"]
