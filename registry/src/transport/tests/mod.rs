//! Servers and certificates of the tests of this module.

mod http;
mod tls;

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::*;

/// A server on this machine, and the header of each request that came to it.
struct Server {
    address: SocketAddr,
    requests: mpsc::Receiver<String>,
}

impl Server {
    /// Answers with what `serve` writes. Its thread ends with the tests.
    fn start(serve: impl Fn(TcpStream, &mpsc::Sender<String>) -> io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for connection in listener.incoming() {
                // Whoever does not like the certificate closes the connection; that is no fault of the server.
                drop(connection.and_then(|connection| serve(connection, &sender)));
            }
        });
        Self { address, requests }
    }

    /// Speaks plain HTTP.
    fn plain(answer: &'static str) -> Self {
        Self::start(move |mut connection, requests| {
            drop(requests.send(header(&mut connection)?));
            connection.write_all(answer.as_bytes())
        })
    }

    /// Speaks TLS, and answers with `shown` or `hidden`, by whether the client has shown a certificate.
    fn tls(config: ServerConfig) -> Self {
        let config = Arc::new(config);
        Self::start(move |connection, requests| {
            drop(requests.send(answer_tls(&config, connection)?));
            Ok(())
        })
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/v2/", self.address)
    }

    fn request(&self) -> String {
        self.requests.recv().unwrap()
    }
}

fn answer_tls(config: &Arc<ServerConfig>, connection: TcpStream) -> io::Result<String> {
    let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, connection);
    let request = header(&mut stream)?;
    let body = if stream.conn.peer_certificates().is_some() { "shown" } else { "hidden" };
    write!(stream, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(request)
}

/// The header of a request.
fn header(stream: &mut impl Read) -> io::Result<String> {
    let mut header = String::new();
    let mut reader = BufReader::new(stream);
    while !header.ends_with("\r\n\r\n") {
        if reader.read_line(&mut header)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(header)
}

/// An authority, and the files that it makes.
struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate.
    file: PathBuf,
    roots: RootCertStore,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Else all authorities would have the same name.
        params.distinguished_name.push(DnType::CommonName, folder.path().to_str().unwrap());
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, certificate.pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).unwrap();
        Self { folder, issuer: Issuer::new(params, key), file, roots }
    }

    /// A server named `name`.
    fn server(&self, name: &str) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        server_config(&certificate, &key, Some(&self.roots))
    }

    /// Files for a client: its certificate and its key.
    fn client(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.issuer).unwrap();
        (
            self.write(&format!("{name}.cert"), &certificate.pem()),
            self.write(&format!("{name}.key"), &key.serialize_pem()),
        )
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    /// To trust it.
    fn trusted(&self) -> Tls {
        Tls { authorities: vec![self.file.clone()], ..Tls::default() }
    }
}

/// Asks for a client's certificate where there are authorities for these, but demands none.
fn server_config(
    certificate: &rcgen::Certificate,
    key: &KeyPair,
    clients: Option<&RootCertStore>,
) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap())
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    builder.with_single_cert(vec![certificate.der().clone()], key).unwrap()
}

fn transport() -> Transport {
    Transport::new(&Proxies::default(), Timeouts::default()).unwrap()
}

/// An error and all of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes: Vec<_> =
        std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect();
    causes.join("\n")
}
