ARG ROOT
FROM ${ROOT}
# The server's own programs come before the distribution's wrappers, which change the user and evaluate `$` in arguments.
ENV PATH=/opt/rabbitmq/sbin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 HOME=/var/lib/rabbitmq RABBITMQ_DATA_DIR=/var/lib/rabbitmq RABBITMQ_LOGS=- \
    RABBITMQ_PLUGINS_DIR=/opt/rabbitmq/plugins
RUN ln -s /usr/lib/rabbitmq/lib/rabbitmq_server-* /opt/rabbitmq \
 && mkdir -p /etc/rabbitmq/conf.d \
 && printf '%s\n' 'loopback_users.guest = false' 'log.console = true' >/etc/rabbitmq/conf.d/10-defaults.conf \
 && rabbitmq-plugins enable --offline rabbitmq_management rabbitmq_prometheus \
 && chown -R rabbitmq:rabbitmq /etc/rabbitmq && rm -rf /var/lib/rabbitmq/* /var/lib/rabbitmq/.erlang.cookie \
 && install -d -o rabbitmq -g rabbitmq -m 777 /var/lib/rabbitmq /var/log/rabbitmq
COPY rabbitmq.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /var/lib/rabbitmq
EXPOSE 4369 5672 15672 15692 25672
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["rabbitmq-server"]
