ARG ROOT
FROM ${ROOT}
# As in the official image: the server's user is nobody, and a new volume is his.
RUN install -d -o nobody -g nogroup /prometheus && install -d /etc/prometheus
USER nobody
VOLUME /prometheus
WORKDIR /prometheus
EXPOSE 9090
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
