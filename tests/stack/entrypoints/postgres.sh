#!/usr/bin/env bash
# PostgreSQL by the contract of the official image: a first start makes the cluster, every start ends in the server as PID 1.
set -euo pipefail
. /usr/local/lib/file-env.sh

[ "${1:0:1}" != - ] || set -- postgres "$@"
[ "$1" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA"
  chmod 700 "$PGDATA"
  find "$PGDATA" \! -user postgres -exec chown postgres:postgres {} +
  exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi

# Only for a first start, and only on the socket: who asks over the network gets no answer before all is set up.
initialise() {
  file_env POSTGRES_PASSWORD
  file_env POSTGRES_USER postgres
  file_env POSTGRES_DB "$POSTGRES_USER"
  file_env POSTGRES_INITDB_ARGS
  if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
    echo "POSTGRES_PASSWORD is not set, and a superuser without a password is refused. Set it for the first start." >&2
    exit 1
  fi
  # The password goes through a pipe: an argument could be read by anybody on the machine. POSTGRES_INITDB_ARGS is
  # unquoted on purpose: it is a list of options, as in the official image.
  if [ -n "$POSTGRES_PASSWORD" ]; then
    initdb --username="$POSTGRES_USER" --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") $POSTGRES_INITDB_ARGS
  else
    initdb --username="$POSTGRES_USER" $POSTGRES_INITDB_ARGS
  fi
  printf '\nhost all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}" >>"$PGDATA/pg_hba.conf"

  local arguments
  arguments=$(printf ' %q' "${@:2}" -c listen_addresses= -p "${PGPORT:-5432}")
  pg_ctl -D "$PGDATA" -w -o "$arguments" start
  local ask=(psql -v ON_ERROR_STOP=1 --no-psqlrc --username "$POSTGRES_USER")
  if [ "$POSTGRES_DB" != postgres ]; then
    "${ask[@]}" --dbname postgres --set db="$POSTGRES_DB" <<<'CREATE DATABASE :"db";'
  fi
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
      *.sql) "${ask[@]}" --no-password --dbname "$POSTGRES_DB" -f "$file" ;;
      *.sql.gz) gunzip -c "$file" | "${ask[@]}" --no-password --dbname "$POSTGRES_DB" ;;
    esac
  done
  pg_ctl -D "$PGDATA" -m fast -w stop
}

[ -s "$PGDATA/PG_VERSION" ] || initialise "$@"
exec "$@"
