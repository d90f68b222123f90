//! Which class each failure belongs to: what a program decides by, and the exit code of the command line.

use std::io;

use layerstore_oci::ErrorKind;

use super::Error;

impl Error {
    /// Whether another [`UnpackPolicy`](crate::UnpackPolicy) would accept the layer.
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Unpack { source, .. } if source.is_limit())
    }

    /// Whether this process must not mount: root may, and root of a user namespace with its own mounts.
    pub fn is_unprivileged(&self) -> bool {
        matches!(self, Self::Store(layerstore_store::Error::NoPrivilege { .. }))
    }

    /// The class of the failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Archive(error) => error.kind(),
            Self::Bundle(error) => error.kind(),
            // The end of the input, or what a decompressor does not understand.
            Self::Read { source, .. }
                if matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                ErrorKind::Corrupt
            }
            Self::File { source, .. }
            | Self::Read { source, .. }
            | Self::Sandbox { source }
            | Self::Random { source }
            | Self::Output { source } => ErrorKind::of_io(source),
            Self::Unpack { source, .. } => source.kind(),
            Self::Tree { source, .. } | Self::Count { source, .. } | Self::Diff { source, .. } => {
                source.kind()
            }
            Self::Document { source, .. } => source.kind(),
            Self::DiffIdMismatch { .. }
            | Self::DocumentMismatch { .. }
            | Self::MissingBlob { .. }
            | Self::WrongDigest { .. }
            | Self::LostBlob { .. } => ErrorKind::Corrupt,
            Self::Unfinished { source, .. } => source.kind(),
            Self::Evicted { source, .. } => source.as_ref().map_or(ErrorKind::NotFound, |error| error.kind()),
            Self::Name(error) => error.kind(),
            Self::Platform(error) => error.kind(),
            Self::NoPlatform { .. }
            | Self::NoImage { .. }
            | Self::NoPath { .. }
            | Self::NotMounted { .. }
            | Self::NoContainer { .. }
            | Self::NothingCalled { .. }
            | Self::NoImageOrContainer { .. }
            | Self::NoBlobs { .. }
            | Self::Incomplete { .. } => ErrorKind::NotFound,
            Self::Change(error) => error.kind(),
            Self::DigestAsTag { .. }
            | Self::ImageArchive { .. }
            | Self::BadTime { .. }
            | Self::NoDestination { .. }
            | Self::MountOverStore { .. }
            | Self::ReservedName { .. }
            | Self::TooManyDocuments { .. }
            | Self::TooDeep { .. }
            | Self::BrokenLink { .. }
            | Self::TooManySteps { .. }
            | Self::NoSetting { .. }
            | Self::BadSetting { .. }
            | Self::Ambiguous { .. }
            | Self::AmbiguousContainer { .. }
            | Self::AmbiguousDigits { .. }
            | Self::BadContainerName { .. }
            | Self::WrongType { .. } => ErrorKind::InvalidInput,
            Self::SeveralNames { .. }
            | Self::Pinned { .. }
            | Self::LastSource { .. }
            | Self::Mounted { .. }
            | Self::UsedByContainers { .. }
            | Self::ContainerMounted { .. } => ErrorKind::InUse,
            Self::OtherFlavour { .. }
            | Self::NotUnpackable { .. }
            | Self::NotAnImage { .. }
            | Self::ForeignLayer { .. } => ErrorKind::Unsupported,
            Self::Registry(error) => error.kind(),
            Self::NoRoom { .. } => ErrorKind::NoSpace,
            Self::Cancelled => ErrorKind::Io,
        }
    }
}
