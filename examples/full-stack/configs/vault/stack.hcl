# What the service `passwords` may do in Vault.
path "secret/data/postgres" { capabilities = ["read"] }
path "secret/data/mysql" { capabilities = ["read"] }
path "secret/data/mongodb" { capabilities = ["read"] }
path "secret/data/redis" { capabilities = ["read"] }
path "secret/data/rabbitmq" { capabilities = ["read"] }
