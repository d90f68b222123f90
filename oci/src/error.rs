//! The classes every error of the workspace falls into, so that exit codes and gRPC status codes
//! are one `match` each.

use std::io;

use crate::{DigestError, VerifyError};

/// What kind of failure an error is, whatever its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing named does not exist.
    NotFound,
    /// The thing to create exists already.
    AlreadyExists,
    /// The caller's input is not valid: a name, a platform, an archive that is no image.
    InvalidInput,
    /// Stored or received data is damaged or is not what its digest says.
    Corrupt,
    /// Something still uses the thing to remove or change.
    InUse,
    /// The thing is not in a state that allows it: a snapshot that is committed, or not committed yet.
    WrongState,
    /// Credentials are missing or not sufficient.
    Unauthorized,
    /// A registry, daemon or network does not answer.
    Unavailable,
    /// The disk or a quota is full.
    NoSpace,
    /// Well formed, but not something this version handles.
    Unsupported,
    /// Any other failure of the operating system.
    Io,
}

impl ErrorKind {
    /// The kind of an I/O error.
    ///
    /// An error that carries a [`VerifyError`] (see [`crate::VerifiedReader`]) has that error's
    /// kind. `EACCES` and `EROFS` stay [`ErrorKind::Io`]: they say something about the machine,
    /// not about credentials.
    pub fn of_io(error: &io::Error) -> Self {
        if let Some(verify) = error.get_ref().and_then(|inner| inner.downcast_ref::<VerifyError>()) {
            return verify.kind();
        }
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace,
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::InvalidData => Self::Corrupt,
            io::ErrorKind::ResourceBusy => Self::InUse,
            _ => Self::Io,
        }
    }
}

impl DigestError {
    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_values_are_classified() {
        // Linux: ENOENT, EACCES, ENOSPC, EROFS, EDQUOT.
        let kinds = [2, 13, 28, 30, 122].map(|errno| ErrorKind::of_io(&io::Error::from_raw_os_error(errno)));
        assert_eq!(
            kinds,
            [ErrorKind::NotFound, ErrorKind::Io, ErrorKind::NoSpace, ErrorKind::Io, ErrorKind::NoSpace]
        );
    }
}
