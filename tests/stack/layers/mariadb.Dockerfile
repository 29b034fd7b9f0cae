ARG ROOT
FROM ${ROOT}
ENV LANG=C.UTF-8
# The distribution's settings are for a machine: they listen on the loopback address only. The name sorts last.
RUN printf '%s\n' '[mariadbd]' 'bind-address=*' 'skip-name-resolve' 'host-cache-size=0' \
      >/etc/mysql/mariadb.conf.d/99-container.cnf \
 && install -d -o mysql -g mysql -m 1777 /var/lib/mysql /run/mysqld && install -d /docker-entrypoint-initdb.d
COPY file-env.sh /usr/local/lib/
COPY mysql.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /var/lib/mysql
EXPOSE 3306
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["mariadbd"]
