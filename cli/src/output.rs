//! Standard output: data, and nothing else.

use std::io::{self, Read, Write as _};

use crate::errors::Failure;

/// Prints `text` and makes sure that it has left the process.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).map_err(|error| Failure::output(&error))
}

/// Copies `data` to standard output in pieces; `read_failed` makes a failure of an error in reading.
pub(crate) fn copy(mut data: impl Read, read_failed: impl Fn(io::Error) -> Failure) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match data.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_failed(error)),
        };
        print(&buffer[..count])?;
    }
}
