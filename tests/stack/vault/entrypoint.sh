#!/usr/bin/env bash
# Vault by the contract of the official image: settings in /vault/config, VAULT_LOCAL_CONFIG as one more file there, data in
# /vault/file, audit logs in /vault/logs, the server as the user vault and as PID 1.
set -euo pipefail

# A core file would hold keys.
ulimit -c 0
[ -z "${VAULT_LOCAL_CONFIG:-}" ] || printf '%s\n' "$VAULT_LOCAL_CONFIG" >/vault/config/local.json

case ${1:-} in
  -*) set -- vault "$@" ;;
  server)
    shift
    set -- vault server -config=/vault/config -dev-root-token-id="${VAULT_DEV_ROOT_TOKEN_ID:-}" \
      -dev-listen-address="${VAULT_DEV_LISTEN_ADDRESS:-0.0.0.0:8200}" "$@"
    ;;
  # A command of Vault's if Vault knows it, and otherwise one of the image.
  *) if [ "${1:-vault}" != vault ] && vault --help "$1" 2>&1 | grep -q "vault $1"; then set -- vault "$@"; fi ;;
esac
[ "${1:-}" = vault ] || exec "$@"
[ "$(id -u)" = 0 ] || exec "$@"

if [ -z "${SKIP_CHOWN:-}" ]; then
  for folder in /vault/config /vault/file /vault/logs; do
    # Settings may be mounted read-only.
    [ "$(stat -c %U "$folder")" = vault ] || chown -R vault:vault "$folder" || [ "$folder" = /vault/config ]
  done
fi
# The right to lock memory, where the container has it (`cap_add: [IPC_LOCK]`). Elsewhere the program could not even start
# with it, and the settings have to say disable_mlock.
if [ -z "${SKIP_SETCAP:-}" ] && (((0x$(sed -n 's/^CapBnd:\t//p' /proc/self/status) >> 14) & 1)); then
  setcap cap_ipc_lock=+ep "$(readlink -f "$(command -v vault)")"
fi
export HOME=/home/vault
exec setpriv --reuid=vault --regid=vault --init-groups -- "$@"
