//! The client against servers that do what they like.

mod download;
mod lists;
mod mirrors;
mod redirects;
mod uploads;

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use layerstore_oci::Digest;

use crate::{
    Client, Credential, FixedCredential, HostOptions, Options, Proxies, Repository, Retry, Unwatched,
};

/// What must be seen nowhere.
const MARKER: &str = "s3cr3t-marker";
/// `user:s3cr3t-marker`.
const ENCODED: &str = "dXNlcjpzM2NyM3QtbWFya2Vy";
const BASIC: &str = "WWW-Authenticate: Basic realm=\"r\"\r\n";

/// A server whose answers come from a function of the request and its number, from 0.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(answer: impl Fn(&str, usize) -> Vec<u8> + Send + 'static) -> Self {
        Self::with(move |request, number, stream| stream.write_all(&answer(request, number)))
    }

    fn with(answer: impl Fn(&str, usize, &mut TcpStream) -> io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let request = head(&mut stream);
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.push(request.clone());
                    seen.len() - 1
                };
                // A client that has had enough may have gone.
                drop(answer(&request, number, &mut stream));
            }
        });
        Self { address, requests }
    }

    /// The same to everybody.
    fn always(answer: Vec<u8>) -> Self {
        Self::new(move |_, _| answer.clone())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

fn head(stream: &mut TcpStream) -> String {
    // What follows the head stays for whoever wants the body.
    let (mut bytes, mut buffer) = (Vec::new(), [0; 1]);
    // Who speaks TLS waits for an answer after the first byte.
    while !bytes.ends_with(b"\r\n\r\n") && bytes.first() != Some(&0x16) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(count) => bytes.extend(&buffer[..count]),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An answer that claims to have `length` bytes.
fn claiming(status: &str, headers: &str, body: &[u8], length: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    claiming(status, headers, body, body.len())
}

fn leads_to(location: &str) -> Vec<u8> {
    answer("307 Temporary Redirect", &format!("Location: {location}\r\n"), b"")
}

/// Where the range that a request asks for begins.
fn range(request: &str) -> Option<usize> {
    let (_, rest) = request.split_once("range: bytes=")?;
    rest.split_once('-')?.0.parse().ok()
}

/// Waits for nothing for long.
fn quick() -> Retry {
    Retry { first_wait: Duration::from_millis(1), ..Retry::default() }
}

fn user() -> Credential {
    Credential::Basic { username: "user".to_owned(), password: MARKER.into() }
}

/// A client whose credential is for the server alone.
fn client_for(server: &Server) -> Client {
    let fixed = FixedCredential::new(&server.address, user()).unwrap();
    client(Options { credentials: Some(Arc::new(fixed)), ..options() })
}

fn options() -> Options {
    Options { hosts: HostOptions::default(), credentials: None, proxies: Proxies::default(), retry: quick() }
}

fn client(options: Options) -> Client {
    Client::new(options).unwrap()
}

/// The repository `a/b` of a registry.
fn repository(client: &Client, domain: &str) -> Repository<'static> {
    client.repository(&format!("{domain}/a/b:1").parse().unwrap(), &Unwatched).unwrap()
}

fn digest(content: &[u8]) -> Digest {
    Digest::sha256_of(content)
}
