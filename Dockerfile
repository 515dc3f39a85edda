# The broker as a container's one process, as the user stoatmq, with its data in a volume:
#
#     docker build -t stoatmq .
#     docker run -p 5672:5672 -v stoatmq:/var/lib/stoatmq -e STOATMQ_DEFAULT_USER=app -e STOATMQ_DEFAULT_PASS=... stoatmq
#
# The data directory is one below the volume, which the broker makes: whose the volume is, and what others may do there, is
# often not ours to say. Name another with STOATMQ_DATA_DIR and not with --data-dir, which the health check does not see.
# The user is 999 in every image: so a later one finds its files, and a directory of the host can be given to it (chown 999).

FROM debian:13 AS build
RUN apt-get update && apt-get install -y --no-install-recommends make
COPY . /src
WORKDIR /src
RUN make install PREFIX=/usr DESTDIR=/out

FROM debian:13-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libcurl4t64 libevent-core-2.1-7t64 libevent-extra-2.1-7t64 libjansson4 \
       liblmdb0 libpcre2-8-0 libseccomp2 libssl3t64 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 999 --home-dir /var/lib/stoatmq stoatmq \
    && install -d -m 0770 -o stoatmq -g root /var/lib/stoatmq
COPY --from=build /out /
RUN stoatmq --version && stoatctl --version
USER stoatmq
ENV STOATMQ_DATA_DIR=/var/lib/stoatmq/data
VOLUME /var/lib/stoatmq
EXPOSE 5672 5671
HEALTHCHECK --start-period=5m CMD ["stoatctl", "--quiet", "ping"]
ENTRYPOINT ["stoatmq"]
