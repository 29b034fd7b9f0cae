#!/usr/bin/env bash
# RabbitMQ by the contract of the official image. The server itself reads RABBITMQ_DEFAULT_USER, RABBITMQ_DEFAULT_PASS and
# RABBITMQ_DEFAULT_VHOST at its first start, and RABBITMQ_NODENAME at each.
set -euo pipefail

case $1 in
  rabbitmq*) ;;
  *) exec "$@" ;;
esac
if [ "$(id -u)" = 0 ]; then
  [ "$1" != rabbitmq-server ] || find /var/lib/rabbitmq \! -user rabbitmq -exec chown rabbitmq:rabbitmq {} +
  exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups -- "$0" "$@"
fi
exec "$@"
