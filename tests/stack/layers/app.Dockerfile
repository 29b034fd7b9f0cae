ARG ROOT
FROM ${ROOT}
RUN ln -s /bin/busybox /usr/local/bin/wget \
 && useradd --uid 1000 --user-group --no-create-home --home-dir /data/git git && install -d -o git -g git /data
COPY app.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /data
EXPOSE 3000
ENTRYPOINT ["docker-entrypoint.sh"]
