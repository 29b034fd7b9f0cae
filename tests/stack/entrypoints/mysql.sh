#!/usr/bin/env bash
# MySQL and MariaDB by the contract of the official images: a first start makes the data, users and database, every start
# ends in the server as PID 1.
set -euo pipefail
. /usr/local/lib/file-env.sh

data=/var/lib/mysql
socket=/var/run/mysqld/mysqld.sock
if command -v mariadbd >/dev/null; then server=mariadbd client=mariadb admin=mariadb-admin; else server=mysqld client=mysql admin=mysqladmin; fi

[ "${1:0:1}" != - ] || set -- "$server" "$@"
case "$1 ${2:-}" in
  *' --version' | *' -V' | *' --help' | *' -?') exec "$@" ;;
  'mysqld '* | 'mariadbd '*) ;;
  *) exec "$@" ;;
esac

if [ "$(id -u)" = 0 ]; then
  mkdir -p /var/run/mysqld
  find "$data" /var/run/mysqld \! -user mysql -exec chown mysql:mysql {} +
  exec setpriv --reuid=mysql --regid=mysql --init-groups -- "$0" "$@"
fi

# MariaDB takes its settings under its own name and, for those who come from MySQL, under the old one.
setting() {
  local value=""
  if [ "$server" = mariadbd ]; then file_env "MARIADB_$1"; value=MARIADB_$1; value=${!value}; fi
  if [ -z "$value" ]; then file_env "MYSQL_$1"; value=MYSQL_$1; value=${!value}; fi
  printf -v "$2" '%s' "$value"
}

# A text as an SQL literal, and a name as an identifier.
literal() {
  local text=${1//\\/\\\\}
  printf "'%s'" "${text//\'/\\\'}"
}
identifier() { printf '`%s`' "${1//\`/\`\`}"; }

grants() {
  local root
  root=$(literal "$root_password")
  # Each server sets up its own accounts: in the binary log they would reach a replica that has them.
  echo "SET @@SESSION.SQL_LOG_BIN = 0;"
  # MariaDB makes more roots than that, without passwords, and ignores some of them by name while names are not resolved.
  [ "$server" = mysqld ] ||
    echo "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost'; DELETE FROM mysql.proxies_priv WHERE Host <> 'localhost'; FLUSH PRIVILEGES;"
  echo "ALTER USER 'root'@'localhost' IDENTIFIED BY $root;"
  if [ "$root_host" != localhost ]; then
    echo "CREATE USER 'root'@$(literal "$root_host") IDENTIFIED BY $root;"
    echo "GRANT ALL ON *.* TO 'root'@$(literal "$root_host") WITH GRANT OPTION;"
  fi
  [ -z "$database" ] || echo "CREATE DATABASE IF NOT EXISTS $(identifier "$database");"
  if [ -n "$user" ]; then
    echo "CREATE USER $(literal "$user")@'%' IDENTIFIED BY $(literal "$password");"
    # An underscore in a grant's database stands for any character unless it is escaped.
    [ -z "$database" ] || echo "GRANT ALL ON $(identifier "${database//_/\\_}").* TO $(literal "$user")@'%';"
  fi
}

# Only for a first start, and only on the socket: who asks over the network gets no answer before all is set up.
initialise() {
  local root_password root_host database user password empty
  setting ROOT_PASSWORD root_password
  setting ROOT_HOST root_host
  setting DATABASE database
  setting USER user
  setting PASSWORD password
  setting ALLOW_EMPTY_PASSWORD empty
  [ -n "$empty" ] || setting ALLOW_EMPTY_ROOT_PASSWORD empty
  root_host=${root_host:-%}
  if [ -z "$root_password" ] && [ -z "$empty" ]; then
    echo "no root password is set, and root without one is refused. Set MYSQL_ROOT_PASSWORD for the first start." >&2
    exit 1
  fi
  if [ "$server" = mariadbd ]; then
    mariadb-install-db --datadir="$data" --auth-root-authentication-method=normal --skip-test-db --skip-name-resolve >/dev/null
  else
    mysqld --initialize-insecure --datadir="$data"
  fi

  local only_socket=(--skip-networking --socket="$socket") pid
  [ "$server" = mariadbd ] || only_socket+=(--mysqlx=OFF)
  "$@" "${only_socket[@]}" &
  pid=$!
  until "$admin" --no-defaults --socket="$socket" --user=root ping >/dev/null 2>&1; do
    kill -0 "$pid" 2>/dev/null || { wait "$pid" || true; echo "the server ended while it was being set up" >&2; exit 1; }
    sleep 0.1
  done
  # The password goes through a pipe, and is used the same way from here on: an argument could be read by anybody.
  grants | "$client" --no-defaults --socket="$socket" --user=root
  local file ask=("$client" --defaults-extra-file=/dev/fd/3 --socket="$socket" --user=root)
  for file in /docker-entrypoint-initdb.d/*; do
    case $file in
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
      *.sql) "${ask[@]}" $database <"$file" 3< <(printf '[client]\npassword="%s"\n' "$root_password") ;;
      *.sql.gz) gunzip -c "$file" | "${ask[@]}" $database 3< <(printf '[client]\npassword="%s"\n' "$root_password") ;;
    esac
  done
  kill -TERM "$pid"
  wait "$pid"
}

[ -d "$data/mysql" ] || initialise "$@"
exec "$@"
