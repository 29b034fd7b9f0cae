#!/bin/sh
# redis-init.sh NODE…: forms a Redis cluster of these nodes, or brings one that is formed together again.
#
# Containers get new addresses when they are made anew, and the nodes remember each other by address: without this, a cluster
# whose containers were all replaced stays apart, though every node has its data.
set -eu
export REDISCLI_AUTH="$REDIS_PASSWORD"

address() { getent hosts "$1" | { read -r found _ && echo "$found"; }; }
ask() { redis-cli -h "$@"; }
info() { ask "$1" cluster info | tr -d '\r' | sed -n "s/^$2://p"; }

addresses=""
formed=false
for node in "$@"; do
  addresses="$addresses $(address "$node"):6379"
  # A node of a cluster owns slots, or knows somebody who does.
  [ "$(info "$node" cluster_slots_assigned)" = 0 ] || formed=true
done

if $formed; then
  for node in "$@"; do
    for other in "$@"; do
      [ "$node" = "$other" ] || ask "$node" cluster meet "$(address "$other")" 6379 >/dev/null
    done
  done
else
  redis-cli --cluster create $addresses --cluster-replicas 0 --cluster-yes
fi

# A minute, then it is an error: something is wrong that waiting does not mend.
tries=120
for node in "$@"; do
  until [ "$(info "$node" cluster_state)" = ok ] && [ "$(info "$node" cluster_known_nodes)" = $# ]; do
    tries=$((tries - 1))
    if [ "$tries" = 0 ]; then
      echo "redis-init: $node does not see the whole cluster of $# nodes; it says:" >&2
      ask "$node" cluster info >&2
      ask "$node" cluster nodes >&2
      exit 1
    fi
    sleep 0.5
  done
done
echo "redis-init: all slots are served by $# nodes"
