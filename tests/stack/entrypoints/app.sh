#!/usr/bin/env bash
# An application that keeps files in a volume, where Forgejo can't be had: it lays down a small tree in /data as Forgejo
# does, answers /api/healthz on port 3000, and writes on while it runs.
#
# APP_WRITE_EVERY=SECONDS makes it replace /data/pair/first and then /data/pair/second with the next number, over and over.
# Their invariant is first = second, or first = second + 1 between the two writes. A stop comes between two rounds, so a
# copy of a stopped volume has them equal; a copy of a running one may have second ahead of first.
set -euo pipefail

if [ "$(id -u)" = 0 ]; then
  find /data \! -user git -exec chown git:git {} +
  exec setpriv --reuid=git --regid=git --init-groups -- "$0" "$@"
fi
[ $# = 0 ] || exec "$@"

# Whole or not at all, also for those who read meanwhile.
replace() { printf '%s\n' "$2" >"$1.new" && mv "$1.new" "$1"; }

if [ ! -e /data/gitea/conf/app.ini ]; then
  mkdir -p /data/gitea/conf /data/gitea/attachments /data/git/repositories/garden/tools.git/refs/heads /data/pair
  printf 'ref: refs/heads/main\n' >/data/git/repositories/garden/tools.git/HEAD
  head -c 65536 /dev/urandom >/data/gitea/attachments/picture
  ln -s picture "/data/gitea/attachments/a name with spaces, ü and a link"
  replace /data/pair/first 0
  replace /data/pair/second 0
  # Last: it says that all the rest is there.
  printf '[server]\nHTTP_PORT = 3000\n' >/data/gitea/conf/app.ini
fi

site=$(mktemp -d)
mkdir "$site/api"
echo '{"status":"pass"}' >"$site/api/healthz"
busybox httpd -f -p 3000 -h "$site" &
server=$!

stopping=false
trap 'stopping=true' TERM INT
if [ -n "${APP_WRITE_EVERY:-}" ]; then
  number=$(</data/pair/second)
  until $stopping; do
    number=$((number + 1))
    replace /data/pair/first "$number"
    replace /data/pair/second "$number"
    # In the background, since a signal is only looked at between two commands.
    sleep "$APP_WRITE_EVERY" &
    wait $! || true
  done
else
  wait "$server" || true
fi
kill "$server"
wait "$server" || true
$stopping
