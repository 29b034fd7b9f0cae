# Sourced by the entrypoints. `file_env NAME [DEFAULT]`: NAME_FILE names a file that holds the value of NAME, as in the
# official images.
file_env() {
  local name=$1 file_name=${1}_FILE value=${2:-}
  if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
    echo "$name and $file_name are both set: set one of them" >&2
    exit 1
  fi
  if [ -n "${!name:-}" ]; then
    value=${!name}
  elif [ -n "${!file_name:-}" ]; then
    value=$(<"${!file_name}")
  fi
  export "$name=$value"
  unset "$file_name"
}
