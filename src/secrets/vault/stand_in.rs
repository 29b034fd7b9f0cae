//! Another server in place of the file's Vault: that of a drill, which the file's address does not lead to, and which must
//! be asked in its place by the very requests and checks of a recovery.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Url;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Where it listens now; asked for every connection, since a container that was started again may have another address.
pub type Whereabouts = Arc<dyn Fn() -> io::Result<SocketAddr> + Send + Sync>;

/// What stands in, and what was brought back with it.
#[derive(Clone)]
pub struct VaultStandIn {
    pub whereabouts: Whereabouts,
    /// What stands for `/`: a file of the login that was brought back is read here, any other where it is.
    pub root: PathBuf,
}

impl VaultStandIn {
    /// The file as it was brought back, or that of the machine.
    pub(super) fn file(&self, path: &Path) -> PathBuf {
        let back = self.root.join(path.strip_prefix("/").unwrap_or(path));
        if back.exists() { back } else { path.to_owned() }
    }

    /// A door on the loopback that leads to it. It is open for as long as the runtime is asked for something.
    ///
    /// Behind a door the address keeps its host, so that its certificate is checked as in a recovery.
    pub(super) fn door(&self, runtime: &Runtime) -> io::Result<SocketAddr> {
        let door = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        door.set_nonblocking(true)?;
        let at = door.local_addr()?;
        let _within = runtime.enter();
        runtime.spawn(lead(TcpListener::from_std(door)?, Arc::clone(&self.whereabouts)));
        Ok(at)
    }
}

async fn lead(door: TcpListener, whereabouts: Whereabouts) {
    while let Ok((mut near, _)) = door.accept().await {
        let whereabouts = Arc::clone(&whereabouts);
        tokio::spawn(async move {
            // It asks the engine, and waits for its answer.
            let asked = tokio::task::spawn_blocking(move || whereabouts()).await;
            let led = match asked.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(address) => TcpStream::connect(address).await,
                Err(error) => Err(error),
            };
            match led {
                Ok(mut far) => drop(tokio::io::copy_bidirectional(&mut near, &mut far).await),
                // The one who asks sees a connection that was closed, and asks again.
                Err(error) => tracing::debug!("the stand-in of Vault can't be reached: {error}"),
            }
        });
    }
}

/// The address with the door in it; None where its certificate would be for a host that is not here.
pub(super) fn through(address: &str, door: SocketAddr) -> Option<Url> {
    let mut url = Url::parse(address).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).parse::<IpAddr>();
    match host {
        Ok(host) if host == door.ip() => {}
        Ok(_) if url.scheme() == "http" => url.set_ip_host(door.ip()).ok()?,
        Ok(_) => return None,
        // A name leads to the door by the client's own table.
        Err(_) => {}
    }
    url.set_port(Some(door.port())).ok()?;
    Some(url)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn an_address_keeps_its_host_wherever_a_certificate_is_for_it() {
        let door: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for (address, led) in [
            ("http://127.0.0.1:8200", Some("http://127.0.0.1:1/")),
            ("http://10.0.0.7:8200", Some("http://127.0.0.1:1/")),
            ("https://127.0.0.1:8200", Some("https://127.0.0.1:1/")),
            ("https://vault.example", Some("https://vault.example:1/")),
            ("https://10.0.0.7:8200", None),
            ("https://[::1]:8200", None),
        ] {
            assert_eq!(through(address, door).as_ref().map(Url::as_str), led, "{address}");
        }
    }

    #[test]
    fn a_door_leads_to_where_the_server_is_now() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let servers = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let places = [&servers[0], &servers[1]].map(|server| server.local_addr().unwrap());
        let answering = servers.map(|server| {
            std::thread::spawn(move || {
                let (mut asked, from) = server.accept().unwrap();
                asked.write_all(server.local_addr().unwrap().port().to_string().as_bytes()).unwrap();
                from
            })
        });
        let now = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let at = Arc::clone(&now);
        let whereabouts: Whereabouts = Arc::new(move || Ok(places[at.load(std::sync::atomic::Ordering::SeqCst)]));
        let door = VaultStandIn { whereabouts, root: "/none".into() }.door(&runtime).unwrap();
        for (nth, place) in places.iter().enumerate() {
            now.store(nth, std::sync::atomic::Ordering::SeqCst);
            let asking = runtime.spawn_blocking(move || {
                let mut answer = String::new();
                std::net::TcpStream::connect(door).unwrap().read_to_string(&mut answer).unwrap();
                answer
            });
            assert_eq!(runtime.block_on(asking).unwrap(), place.port().to_string());
        }
        for thread in answering {
            thread.join().unwrap();
        }
    }
}
