# What the service `passwords` does: a login that is renewed, and one file for each password.
vault { address = "http://vault:8200" }

auto_auth {
  method "approle" {
    config = {
      role_id_file_path                   = "/approle/role-id"
      secret_id_file_path                 = "/approle/secret-id"
      remove_secret_id_file_after_reading = false
    }
  }
}

template {
  contents    = "{{ with secret \"secret/data/postgres\" }}{{ .Data.data.password }}{{ end }}"
  destination = "/run/passwords/postgres"
  perms       = "0444"
}
template {
  contents    = "{{ with secret \"secret/data/mysql\" }}{{ .Data.data.password }}{{ end }}"
  destination = "/run/passwords/mysql"
  perms       = "0444"
}
template {
  contents    = "{{ with secret \"secret/data/mongodb\" }}{{ .Data.data.password }}{{ end }}"
  destination = "/run/passwords/mongodb"
  perms       = "0444"
}
template {
  contents    = "{{ with secret \"secret/data/redis\" }}{{ .Data.data.password }}{{ end }}"
  destination = "/run/passwords/redis"
  perms       = "0444"
}
template {
  contents    = "{{ with secret \"secret/data/rabbitmq\" }}{{ .Data.data.password }}{{ end }}"
  destination = "/run/passwords/rabbitmq"
  perms       = "0444"
}
