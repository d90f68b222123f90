//! A server of tests: a thread for each connection, all of which end with the value.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

/// Listens on a free port of 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Arc<Stop>,
    accept: Option<JoinHandle<()>>,
}

impl Server {
    /// Calls `serve` in a thread of its own for each connection. Errors of `serve` close that connection.
    pub(crate) fn start(
        serve: impl Fn(&Arc<TcpStream>, &Stop) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(Stop::default());
        let (serve, shared) = (Arc::new(serve), Arc::clone(&stop));
        let accept = std::thread::spawn(move || {
            let mut threads: Vec<JoinHandle<()>> = Vec::new();
            for stream in listener.incoming() {
                if shared.is_stopped() {
                    break;
                }
                let Ok(stream) = stream.and_then(|stream| shared.track(stream)) else { continue };
                let (serve, shared) = (Arc::clone(&serve), Arc::clone(&shared));
                threads.retain(|thread| !thread.is_finished());
                threads.push(std::thread::spawn(move || {
                    // The other side sees the connection close; a test looks at what that makes of it.
                    serve(&stream, &shared).ok();
                }));
            }
            for thread in threads {
                thread.join().ok();
            }
        });
        Self { address, stop, accept: Some(accept) }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.stop();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(accept) = self.accept.take() {
            accept.join().ok();
        }
    }
}

/// Ends what the threads of a server wait for.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    streams: Vec<Weak<TcpStream>>,
}

impl Stop {
    /// Takes a connection that a stop is to shut down. It closes with the last owner of the result.
    pub(crate) fn track(&self, stream: TcpStream) -> io::Result<Arc<TcpStream>> {
        stream.set_nodelay(true)?;
        let stream = Arc::new(stream);
        let mut state = self.state.lock().unwrap();
        if state.stopped {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        state.streams.retain(|stream| stream.strong_count() > 0);
        state.streams.push(Arc::downgrade(&stream));
        Ok(stream)
    }

    /// Waits until `time` has passed; an error if the server is to stop before that.
    pub(crate) fn wait(&self, time: Duration) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let (state, _) = self.changed.wait_timeout_while(state, time, |state| !state.stopped).unwrap();
        if state.stopped { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn is_stopped(&self) -> bool {
        self.state.lock().unwrap().stopped
    }

    fn stop(&self) {
        let mut state = self.state.lock().unwrap();
        state.stopped = true;
        for stream in state.streams.iter().filter_map(Weak::upgrade) {
            stream.shutdown(Shutdown::Both).ok();
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_server_ends_though_its_threads_wait() {
        let server = Server::start(|stream, stop| {
            (&**stream).read_exact(&mut [0])?;
            stop.wait(Duration::from_hours(1))
        });
        let silent = TcpStream::connect(server.address()).unwrap();
        let waiting = TcpStream::connect(server.address()).unwrap();
        io::Write::write_all(&mut &waiting, b"x").unwrap();
        let start = Instant::now();
        drop(server);
        assert!(start.elapsed() < Duration::from_mins(1));
        drop(silent);
    }
}
