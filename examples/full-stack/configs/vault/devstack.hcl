# What devstack may do in Vault: read the passwords of the servers that it backs up, back Vault up, and bring it back.
path "secret/data/postgres" { capabilities = ["read"] }
path "secret/data/mysql" { capabilities = ["read"] }
path "secret/data/mongodb" { capabilities = ["read"] }
path "secret/data/redis" { capabilities = ["read"] }
path "secret/data/canary" { capabilities = ["read"] }
path "auth/approle/role/devstack/secret-id/lookup" { capabilities = ["update"] }

# A backup.
path "sys/storage/raft/snapshot" { capabilities = ["read", "update"] }
path "sys/policies/acl" { capabilities = ["list"] }
path "sys/policies/acl/*" { capabilities = ["read"] }
path "sys/auth" { capabilities = ["read"] }
path "sys/mounts" { capabilities = ["read"] }
path "auth/approle/role" { capabilities = ["list"] }
path "auth/approle/role/+" { capabilities = ["read"] }
path "pki/issuers" { capabilities = ["list"] }
path "pki/issuer/+" { capabilities = ["read"] }

# A restore: the snapshot, and a new secret-id for the service `passwords`.
path "sys/storage/raft/snapshot-force" { capabilities = ["update"] }
path "auth/approle/role/stack/secret-id" { capabilities = ["update"] }
