#!/usr/bin/env bash
# Redis by the contract of the official image: arguments or a configuration file, data in /data, the server as PID 1.
set -euo pipefail

case $1 in
  -* | *.conf) set -- redis-server "$@" ;;
esac
[ "$1" = redis-server ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
  find . \! -user redis -exec chown redis:redis {} +
  exec setpriv --reuid=redis --regid=redis --init-groups -- "$0" "$@"
fi

case ${2:-} in
  -v | --version | -h | --help | --test-memory | --check-system) exec "$@" ;;
esac
umask 0077
# The official build has protected mode off by default, since in a container every client is a remote one. What the command
# says itself comes later and wins; a configuration file has to be the first argument.
if [ $# -gt 1 ] && [ "${2:0:2}" != -- ]; then
  exec "$1" "$2" --protected-mode no "${@:3}"
fi
exec "$1" --protected-mode no "${@:2}"
