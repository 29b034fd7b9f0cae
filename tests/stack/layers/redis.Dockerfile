ARG ROOT
FROM ${ROOT}
RUN install -d -o redis -g redis /data
COPY redis.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /data
WORKDIR /data
EXPOSE 6379
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
