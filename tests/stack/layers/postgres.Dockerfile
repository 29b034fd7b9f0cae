ARG ROOT
FROM ${ROOT}
ENV PATH=/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PG_MAJOR=17 PGDATA=/var/lib/postgresql/data LANG=en_US.utf8
RUN sed -i "s/^#listen_addresses = .*/listen_addresses = '*'/" /usr/share/postgresql/17/postgresql.conf.sample \
 && grep -q "^listen_addresses = '\*'" /usr/share/postgresql/17/postgresql.conf.sample \
 && install -d -o postgres -g postgres -m 700 "$PGDATA" \
 && install -d -o postgres -g postgres -m 3777 /var/run/postgresql \
 && install -d /docker-entrypoint-initdb.d
COPY file-env.sh /usr/local/lib/
COPY postgres.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /var/lib/postgresql/data
EXPOSE 5432
# A fast shutdown: SIGTERM would wait for every client to leave.
STOPSIGNAL SIGINT
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
