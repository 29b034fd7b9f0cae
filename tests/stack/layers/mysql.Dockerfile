ARG ROOT
FROM ${ROOT}
ENV LANG=C.UTF-8
# The distribution's settings are for a machine: they listen on the loopback address only.
RUN printf '%s\n' '[mysqld]' 'user=mysql' 'datadir=/var/lib/mysql' 'socket=/var/run/mysqld/mysqld.sock' \
      'pid-file=/var/run/mysqld/mysqld.pid' 'secure-file-priv=/var/lib/mysql-files' 'skip-name-resolve' \
      'host-cache-size=0' '[client]' 'socket=/var/run/mysqld/mysqld.sock' '!includedir /etc/mysql/conf.d/' >/etc/my.cnf \
 && rm -rf /etc/mysql/* && ln -s /etc/my.cnf /etc/mysql/my.cnf && mkdir /etc/mysql/conf.d \
 && install -d -o mysql -g mysql -m 1777 /var/lib/mysql /var/run/mysqld \
 && install -d -o mysql -g mysql -m 750 /var/lib/mysql-files && install -d /docker-entrypoint-initdb.d
COPY file-env.sh /usr/local/lib/
COPY mysql.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /var/lib/mysql
EXPOSE 3306 33060
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["mysqld"]
