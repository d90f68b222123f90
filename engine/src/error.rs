//! What can go wrong, in terms of images.

mod kind;
mod wording;

use std::io;
use std::path::PathBuf;

use layerstore_oci::{ChangeError, DiffId, Digest, DocumentError, Platform, PlatformError, ReferenceError};

use wording::{as_names, comma, containers, evicted, few, list};

/// A failed operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] layerstore_store::Error),
    /// The archive cannot be read, or holds no image.
    #[error(transparent)]
    Archive(#[from] layerstore_archive::Error),
    /// The registry does not give what is wanted.
    #[error(transparent)]
    Registry(Box<layerstore_registry::Error>),
    /// A bundle cannot be made.
    #[error(transparent)]
    Bundle(#[from] crate::bundle::BundleError),
    /// There is less space than a pull will need.
    #[error("pulling needs about {needed} bytes, and {} has only {available} left", root.display())]
    NoRoom {
        /// The store.
        root: PathBuf,
        /// An estimate, in bytes.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// Some platforms of an image that is to be pushed or saved are not in the store.
    #[error("the store does not have all of `{name}`: it lacks {}", missing.join(", "))]
    Incomplete {
        /// The image.
        name: String,
        /// Platforms, or digests of what says nothing about its platform.
        missing: Vec<String>,
        /// Platforms that are there.
        present: Vec<String>,
    },
    /// Blobs that an image needs are not in the store.
    #[error("the store has no blobs {}", comma(digests))]
    NoBlobs {
        /// The blobs.
        digests: Vec<Digest>,
    },
    /// Layers that were evicted, and cannot be fetched again.
    #[error("{}", evicted(name, digests))]
    Evicted {
        /// The image as given.
        name: String,
        /// The blobs that are not here.
        digests: Vec<Digest>,
        /// Why they cannot be fetched; none if nobody is known who has them.
        source: Option<Box<Error>>,
    },
    /// An artifact that is no image, for an archive that holds images only.
    #[error("`{name}` is no image but an artifact of another kind, which only an OCI archive can hold")]
    NotAnImage {
        /// As given.
        name: String,
    },
    /// What was to be written could not be written.
    #[error("cannot write the archive")]
    Output {
        /// The reason.
        source: io::Error,
    },
    /// Something has no name to be pushed under.
    #[error("`{name}` is no name of an image, and so says nothing about the registry to push to")]
    NoDestination {
        /// What was given.
        name: String,
    },
    /// A layer that may not be in the registry, and is not.
    #[error(
        "layer {digest} is a foreign layer ({media_type}), which the registry need not have and does not have"
    )]
    ForeignLayer {
        /// The layer.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A file named by the caller cannot be read.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The bytes of a blob could not be read from where they come from.
    #[error("cannot read {what}")]
    Read {
        /// The blob or the member of an archive.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// A layer could not be unpacked.
    #[error("layer {layer}")]
    Unpack {
        /// The layer's digest, or its name in an archive.
        layer: String,
        /// The reason.
        source: layerstore_unpack::Error,
    },
    /// The files of a container or an image cannot be read, or not be put into an archive.
    #[error("{name}")]
    Tree {
        /// The image or container as given.
        name: String,
        /// The reason.
        source: layerstore_unpack::DiffError,
    },
    /// A layer's content is not what the image's config says.
    #[error("layer {layer} has the diff ID {actual}, the image's config says {expected}")]
    DiffIdMismatch {
        /// The layer's blob, or its name in an archive.
        layer: String,
        /// According to the config.
        expected: DiffId,
        /// Of the content.
        actual: DiffId,
    },
    /// A manifest, index or config that cannot be read.
    #[error("{digest} is not a usable {what}")]
    Document {
        /// What it should be.
        what: &'static str,
        /// The blob, or its name in an archive.
        digest: String,
        /// The reason.
        source: DocumentError,
    },
    /// The content of a document is not what its digest says.
    #[error("{what} {digest} does not match its digest: the content has {actual}")]
    DocumentMismatch {
        /// What it should be.
        what: &'static str,
        /// Its digest.
        digest: Digest,
        /// What came.
        actual: Digest,
    },
    /// An archive names a blob that neither it nor the store has.
    #[error("the archive names {what} {digest}, but does not contain it")]
    MissingBlob {
        /// What it should be.
        what: &'static str,
        /// Its digest.
        digest: Digest,
    },
    /// A name that is not a reference.
    #[error(transparent)]
    Name(#[from] ReferenceError),
    /// A name that would be taken for a digest.
    #[error("`{name}` cannot be a name: it would be taken for an image ID")]
    ReservedName {
        /// As given.
        name: String,
    },
    /// A name with the digest of something else.
    #[error("`{name}` names another digest than that of its image, {actual}")]
    WrongDigest {
        /// As given.
        name: String,
        /// The image's manifest or index.
        actual: Digest,
    },
    /// A name to give that has a digest in it.
    #[error("`{name}` cannot be given as a name: a digest is not chosen, it follows from the content")]
    DigestAsTag {
        /// As given.
        name: String,
    },
    /// A store with trees that another kind of user has unpacked.
    #[error("the layers of the store at {} were unpacked by {found}, this process is {wanted}", root.display())]
    OtherFlavour {
        /// The store's root.
        root: PathBuf,
        /// Who unpacked.
        found: String,
        /// Who asks.
        wanted: &'static str,
    },
    /// A directory that belongs to the store.
    #[error("{} cannot be a mount point: it is part of the store at {}, or around it", target.display(), root.display())]
    MountOverStore {
        /// The directory.
        target: PathBuf,
        /// The store's root.
        root: PathBuf,
    },
    /// A platform that is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// An index without the platform that is wanted.
    #[error("the image has no platform for {wanted}; it has {}", list(present))]
    NoPlatform {
        /// What was wanted.
        wanted: Box<Platform>,
        /// What there is.
        present: Vec<Platform>,
    },
    /// More bytes of manifests, indexes and configs than any archive of real images has.
    #[error("the archive's manifests and configs have more than {limit} bytes")]
    TooManyDocuments {
        /// How many are allowed.
        limit: u64,
    },
    /// Indexes inside indexes, deeper than any tool makes them.
    #[error("index {digest} is nested too deeply")]
    TooDeep {
        /// The innermost index.
        digest: Digest,
    },
    /// No image of this name or ID.
    #[error("no such image: {name}")]
    NoImage {
        /// As given.
        name: String,
    },
    /// Several images have an ID that starts like this.
    #[error("`{prefix}` is ambiguous: {} images have an ID that starts with it", images.len())]
    Ambiguous {
        /// As given.
        prefix: String,
        /// Their IDs.
        images: Vec<Digest>,
    },
    /// An image that has more names than the one it should be removed by.
    #[error("image {id} has several names: {}", few(names))]
    SeveralNames {
        /// The image.
        id: String,
        /// Its names.
        names: Vec<String>,
    },
    /// Names that are pinned.
    #[error("image {name} is pinned{}", as_names(name, names))]
    Pinned {
        /// As given.
        name: String,
        /// The names that are pinned.
        names: Vec<String>,
    },
    /// The last name by which evicted layers can be fetched again.
    #[error(
        "layers of {name} were evicted, and {} could not be pushed or saved without this name",
        few(others)
    )]
    LastSource {
        /// As given.
        name: String,
        /// The names that stay.
        others: Vec<String>,
    },
    /// An image that is mounted.
    #[error("image {name} is mounted at {}", target.display())]
    Mounted {
        /// As given.
        name: String,
        /// Where.
        target: PathBuf,
    },
    /// An image that containers were made from.
    #[error("image {name} is used by {}", containers(names))]
    UsedByContainers {
        /// The image as given.
        name: String,
        /// The containers.
        names: Vec<String>,
    },
    /// A container that is mounted.
    #[error("container {name} is mounted at {}", target.display())]
    ContainerMounted {
        /// Its name.
        name: String,
        /// Where.
        target: PathBuf,
    },
    /// The kernel gives no random numbers.
    #[error("cannot choose an ID")]
    Random {
        /// The reason.
        source: io::Error,
    },
    /// Neither a container nor an image.
    #[error("no such container or image: {name}")]
    NoImageOrContainer {
        /// As given.
        name: String,
    },
    /// Nothing in the store that could be explained.
    #[error("there is nothing in the store that is called `{text}`")]
    NothingCalled {
        /// As given.
        text: String,
    },
    /// Several digests start like this.
    #[error("`{prefix}` is ambiguous: {} start with it", found.join(", "))]
    AmbiguousDigits {
        /// As given.
        prefix: String,
        /// Some of them.
        found: Vec<String>,
    },
    /// No container of this name or ID.
    #[error("no such container: {name}")]
    NoContainer {
        /// As given.
        name: String,
    },
    /// Several containers have an ID that starts like this.
    #[error("`{prefix}` is ambiguous: containers {} have an ID that starts with it", names.join(", "))]
    AmbiguousContainer {
        /// As given.
        prefix: String,
        /// Their names.
        names: Vec<String>,
    },
    /// A name that no container can have.
    #[error(
        "`{name}` cannot be the name of a container: letters, digits, `_`, `.` and `-` may be in it, the first is a letter or digit, and there are at least two"
    )]
    BadContainerName {
        /// As given.
        name: String,
    },
    /// The files of a snapshot cannot be counted.
    #[error("cannot count the files of {what}")]
    Count {
        /// The container or snapshot.
        what: String,
        /// The reason.
        source: layerstore_unpack::DiffError,
    },
    /// Nothing of the store is mounted there.
    #[error("not mounted: {name}")]
    NotMounted {
        /// As given.
        name: String,
    },
    /// An artifact that is not an image, or has layers of an unknown type.
    #[error("{name} cannot be unpacked: {reason}")]
    NotUnpackable {
        /// As given.
        name: String,
        /// Why.
        reason: String,
    },
    /// A hard link of a layer to what is no file, neither in it nor in the layers below.
    #[error("{image} has a broken layer: its `{entry}` is a hard link to `{target}`, which {reason}")]
    BrokenLink {
        /// The image as given, or its ID.
        image: String,
        /// The link.
        entry: String,
        /// What it leads to.
        target: String,
        /// What is wrong with that.
        reason: &'static str,
    },
    /// Layers that leave so much open in such deep directories that putting them together does not come to an end.
    #[error("{image} takes too many steps to put together: its layers have too many long paths and links")]
    TooManySteps {
        /// The image as given, or its ID.
        image: String,
    },
    /// A path that the image does not have.
    #[error("{image} has no {path}")]
    NoPath {
        /// The image as given.
        image: String,
        /// The path as given.
        path: String,
    },
    /// A path of the wrong type.
    #[error("{path} in {image} is {what}")]
    WrongType {
        /// The image as given.
        image: String,
        /// The path as given.
        path: String,
        /// What it is instead.
        what: &'static str,
    },
    /// The kernel has Landlock and refuses to confine a thread.
    #[error("cannot confine the unpacking threads")]
    Sandbox {
        /// The reason.
        source: io::Error,
    },
    /// A setting that there is not.
    #[error("there is no setting `{name}`")]
    NoSetting {
        /// As given.
        name: String,
        /// Those that there are.
        known: Vec<&'static str>,
    },
    /// A value that a setting cannot have.
    #[error("`{value}` is no value for the setting `{name}`: it is {wanted}")]
    BadSetting {
        /// The setting.
        name: String,
        /// As given.
        value: String,
        /// What it can be.
        wanted: &'static str,
    },
    /// A change to an image's config that makes no sense.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// No layer can be made of a directory.
    #[error("cannot make a layer of {}", path.display())]
    Diff {
        /// The directory.
        path: PathBuf,
        /// The reason.
        source: layerstore_unpack::DiffError,
    },
    /// A blob of an image that should be here, and that another image is to be built on.
    #[error("image {image} cannot be built on: the store does not have its {digest} any more")]
    LostBlob {
        /// The image ID.
        image: Digest,
        /// The manifest, config or layer.
        digest: Digest,
    },
    /// An archive of images where a root filesystem is wanted.
    #[error("{name} is an archive of images, not a root filesystem")]
    ImageArchive {
        /// The file, or `-` for a stream.
        name: String,
    },
    /// A time that an image's config cannot have.
    #[error("{seconds} seconds since 1970 is no time that an image can have")]
    BadTime {
        /// As given.
        seconds: i64,
    },
    /// A collection went on to its end, but not all that it forgot could be taken away. The next one tries again.
    #[error("not all could be deleted: {source}")]
    Unfinished {
        /// What is gone all the same.
        collected: Box<crate::Collected>,
        /// What failed first.
        source: Box<Error>,
    },
    /// Given up because another part of the operation failed, whose error is the one that is reported.
    #[error("the operation was given up")]
    Cancelled,
}

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<layerstore_registry::Error> for Error {
    fn from(error: layerstore_registry::Error) -> Self {
        Self::Registry(Box::new(error))
    }
}
