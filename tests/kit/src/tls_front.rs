//! Gives TLS to a server that has none: a token server, a bucket, a fault proxy.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

use crate::authority::Authority;
use crate::server::{Server, Stop};

/// Listens on a free port of 127.0.0.1 and passes what comes over TLS on to another server in plain text. It does not
/// look at what it passes: a registry behind it takes itself for one without TLS, so it should be told to use
/// [`crate::registry::RegistryOptions::relative_urls`].
#[derive(Debug)]
pub struct TlsFront {
    server: Server,
}

impl TlsFront {
    /// A front of the server at `upstream`, with a certificate of `authority`.
    pub fn start(upstream: SocketAddr, authority: &Authority) -> Self {
        let identity = authority.server();
        let key = PrivateKeyDer::Pkcs8(identity.key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        Self { server: Server::start(move |client, stop| pass(client, upstream, &config, stop)) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address().to_string()
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }
}

fn pass(
    client: &Arc<TcpStream>,
    upstream: SocketAddr,
    config: &Arc<ServerConfig>,
    stop: &Stop,
) -> io::Result<()> {
    let upstream = stop.track(TcpStream::connect(upstream)?)?;
    let session = Mutex::new(ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?);
    std::thread::scope(|scope| {
        let back = scope.spawn(|| {
            encrypt(&upstream, client, &session).ok();
            client.shutdown(Shutdown::Both).ok();
        });
        let passed = decrypt(client, &upstream, &session);
        upstream.shutdown(Shutdown::Both).ok();
        back.join().ok();
        passed
    })
}

/// Passes on what the client sends until it stops.
fn decrypt(
    mut client: &TcpStream,
    mut upstream: &TcpStream,
    session: &Mutex<ServerConnection>,
) -> io::Result<()> {
    let mut sealed = vec![0; 16 * 1024];
    loop {
        let n = client.read(&mut sealed)?;
        let mut rest = &sealed[..n];
        if n == 0 {
            return Ok(());
        }
        while !rest.is_empty() {
            let mut plain = Vec::new();
            let mut session = session.lock().unwrap();
            session.read_tls(&mut rest)?;
            let state = session.process_new_packets();
            // Steps of the handshake, or the reason of a refusal.
            send(&mut session, client)?;
            let waiting = state.map_err(io::Error::other)?.plaintext_bytes_to_read();
            plain.resize(waiting, 0);
            session.reader().read_exact(&mut plain)?;
            // Without the lock: the upstream may have to answer before it reads on.
            drop(session);
            upstream.write_all(&plain)?;
        }
    }
}

/// Passes back what the upstream sends until it stops.
fn encrypt(
    mut upstream: &TcpStream,
    client: &TcpStream,
    session: &Mutex<ServerConnection>,
) -> io::Result<()> {
    let mut plain = vec![0; 16 * 1024];
    loop {
        let n = upstream.read(&mut plain)?;
        let mut session = session.lock().unwrap();
        if n == 0 {
            session.send_close_notify();
            return send(&mut session, client);
        }
        session.writer().write_all(&plain[..n])?;
        send(&mut session, client)?;
    }
}

fn send(session: &mut ServerConnection, mut client: &TcpStream) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(&mut client)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::bucket::Bucket;
    use crate::image::Layout;

    #[test]
    fn a_bucket_behind_a_front_speaks_tls() {
        let mut layout = Layout::new();
        let blob = vec![7; 3 << 20];
        let target = format!("/{}", layout.blob(&blob));
        let bucket = Bucket::start(&layout);
        let authority = Authority::new();
        let front = TlsFront::start(bucket.address(), &authority);
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.crt");
        std::fs::write(&ca, authority.pem()).unwrap();
        let script = "import ssl, sys, urllib.request\n\
            context = ssl.create_default_context(cafile=sys.argv[2])\n\
            sys.stdout.buffer.write(urllib.request.urlopen(sys.argv[1], context=context).read())";
        let url = format!("{}{target}", front.url());
        let out = Command::new("python3").args(["-c", script, &url]).arg(ca).output().unwrap();
        assert!(out.stdout == blob, "{}", String::from_utf8_lossy(&out.stderr));
    }
}
