#!/usr/bin/env bash
# The MongoDB stand-in by the contract of the official image: MONGO_INITDB_ROOT_USERNAME and MONGO_INITDB_ROOT_PASSWORD
# (or *_FILE) make the first user of an empty /data/db and switch authentication on; port 27017; the server as PID 1.
#
# The server is FerretDB. Of mongod's options those are taken that mean nothing here; others are refused.
set -euo pipefail

case ${1:-} in
  -* | '') set -- mongod "$@" ;;
esac
[ "$1" = mongod ] || exec "$@"
shift

file_env() {
  local name=$1 file_name=${1}_FILE
  if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
    echo "error: both $name and $file_name are set (but are exclusive)" >&2
    exit 1
  fi
  [ -z "${!file_name:-}" ] || export "$name=$(<"${!file_name}")"
  unset "$file_name"
}
file_env MONGO_INITDB_ROOT_USERNAME
file_env MONGO_INITDB_ROOT_PASSWORD
user=${MONGO_INITDB_ROOT_USERNAME:-}
password=${MONGO_INITDB_ROOT_PASSWORD:-}
if { [ -n "$user" ] && [ -z "$password" ]; } || { [ -z "$user" ] && [ -n "$password" ]; }; then
  echo "error: missing MONGO_INITDB_ROOT_USERNAME or MONGO_INITDB_ROOT_PASSWORD: both must be specified for a user to be created" >&2
  exit 1
fi

auth=false
port=27017
[ -z "$user" ] || auth=true
while [ $# -gt 0 ]; do
  case $1 in
    --auth) auth=true ;;
    --bind_ip_all | --quiet) ;;
    --port=*) port=${1#*=} ;;
    --port) port=$2; shift ;;
    --bind_ip | --wiredTigerCacheSizeGB) shift ;;
    --bind_ip=* | --wiredTigerCacheSizeGB=*) ;;
    --replSet | --replSet=*)
      echo "error: $1: this stand-in for MongoDB has no replica sets and no oplog; use MongoDB's own image for that" >&2
      exit 1 ;;
    *)
      echo "error: $1: this stand-in for MongoDB does not know this option of mongod" >&2
      exit 1 ;;
  esac
  shift
done

run=()
if [ "$(id -u)" = 0 ]; then
  find /data/db \! -user mongodb -exec chown mongodb:mongodb {} +
  run=(setpriv --reuid=mongodb --regid=mongodb --clear-groups --)
fi

# By environment, so that no password is in an argument list. The setup does nothing where the data folder is not empty.
export FERRETDB_TEST_ENABLE_NEW_AUTH=$auth
if [ -n "$user" ]; then
  export FERRETDB_SETUP_DATABASE=admin FERRETDB_SETUP_USERNAME=$user FERRETDB_SETUP_PASSWORD=$password
fi
unset MONGO_INITDB_ROOT_USERNAME MONGO_INITDB_ROOT_PASSWORD
cd /data/db
exec "${run[@]}" ferretdb --handler=sqlite --sqlite-url=file:/data/db/ --state-dir=- --listen-addr=":$port" \
  --debug-addr=- --telemetry=disable --log-level="${FERRETDB_LOG_LEVEL:-warn}"
