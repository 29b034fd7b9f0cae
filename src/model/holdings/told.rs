//! What a running container has said of itself.

use super::Holdings;
use crate::model::image::Server;

impl Holdings {
    /// The service is this server, or none, whatever its image is called: what it mounts is looked at again.
    pub fn tell(&mut self, service: &str, server: Option<Server>) {
        let Some(holder) = self.services.get_mut(service).filter(|holder| holder.server != server) else { return };
        holder.server = server;
        let volumes = self.volumes.iter_mut().flat_map(|volume| &mut volume.uses);
        let all = volumes.chain(self.binds.iter_mut().flat_map(|bind| &mut bind.uses));
        for it in
            all.chain(self.nameless.iter_mut().map(|nameless| &mut nameless.at)).filter(|it| it.service == service)
        {
            it.data_of = server.filter(|server| server.keeps_data_at(&it.target));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_found_running_has_its_data_where_such_servers_keep_it() {
        let resolved = serde_json::json!({ "name": "shop", "services": {
            "db": { "image": "acme/db", "volumes": [ { "type": "volume", "source": "pg", "target": "/var/lib/postgresql/data" },
                { "type": "bind", "source": "/srv/dumps", "target": "/dumps" } ] },
        } });
        let mut held = Holdings::of(&resolved, &[]);
        assert_eq!(held.services["db"].server, None);
        held.tell("db", Some(Server::Postgres));
        held.tell("nobody", Some(Server::Redis));
        assert_eq!(held.services["db"].server, Some(Server::Postgres));
        assert_eq!(held.volumes[0].uses[0].data_of, Some(Server::Postgres));
        assert_eq!(held.binds[0].uses[0].data_of, None);
        held.tell("db", None);
        assert_eq!((held.services["db"].server, held.volumes[0].uses[0].data_of), (None, None));
    }
}
