//! One file of credentials: what it says, and how it is written.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::key::Server;
use super::{Credential, CredentialError};
use crate::limited;

/// A file of credentials is never this long.
const MAX_BYTES: u64 = 4 << 20;
/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// As both tools write it, but padding may be missing, as when somebody has written the file by hand.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The parts of an entry that we know.
const FIELDS: [&str; 5] = ["auth", "username", "password", "identitytoken", "registrytoken"];

/// A file of credentials as it was read. Everything in it is kept, in its order.
pub(super) struct AuthFile {
    path: PathBuf,
    root: Map<String, Value>,
}

/// The helper that a file names for a registry.
pub(super) struct ChosenHelper {
    /// The name, as the file has it.
    pub(super) name: String,
    /// What to ask it for. Docker and podman ask for the key of `credHelpers` as it is written.
    pub(super) server: String,
    /// Whether `credHelpers` has it, for this host alone.
    pub(super) for_this_host: bool,
}

impl AuthFile {
    /// Reads a file; `None` if it does not exist. An empty file is one without credentials, as for Docker.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, CredentialError> {
        let bytes = match limited::read(path, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(CredentialError::Read { path: path.to_owned(), source }),
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(Some(Self::empty(path)));
        }
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(root)) => Ok(Some(Self { path: path.to_owned(), root })),
            Ok(_) => {
                Err(CredentialError::Malformed { path: path.to_owned(), reason: "it is no JSON object" })
            }
            // The parser's own words may quote the file.
            Err(error) => Err(CredentialError::Syntax {
                path: path.to_owned(),
                line: error.line(),
                column: error.column(),
            }),
        }
    }

    /// A file that does not exist yet.
    pub(super) fn empty(path: &Path) -> Self {
        Self { path: path.to_owned(), root: Map::new() }
    }

    /// The helper for a registry, if the file has one.
    pub(super) fn helper(&self, server: &Server) -> Result<Option<ChosenHelper>, CredentialError> {
        if let Some(helpers) = self.object("credHelpers", "`credHelpers` is no object")? {
            let exact = helpers.get_key_value(server.key());
            if let Some((key, name)) =
                exact.or_else(|| helpers.iter().find(|(key, _)| server.is_named_by(key)))
            {
                let name =
                    name.as_str().ok_or_else(|| self.malformed("a name in `credHelpers` is no string"))?;
                return Ok((!name.is_empty()).then(|| ChosenHelper {
                    name: name.to_owned(),
                    server: key.clone(),
                    for_this_host: true,
                }));
            }
        }
        let name = match self.root.get("credsStore") {
            None | Some(Value::Null) => return Ok(None),
            Some(name) => name.as_str().ok_or_else(|| self.malformed("`credsStore` is no string"))?,
        };
        Ok((!name.is_empty()).then(|| ChosenHelper {
            name: name.to_owned(),
            server: server.key().to_owned(),
            for_this_host: false,
        }))
    }

    /// What `auths` has for a repository, or for its registry if the repository is empty.
    pub(super) fn entry(
        &self,
        server: &Server,
        repository: &str,
    ) -> Result<Option<Credential>, CredentialError> {
        let Some(auths) = self.auths()? else { return Ok(None) };
        let mut keys = server.namespaces(repository);
        keys.push(server.key().to_owned());
        let spellings = auths.keys().filter(|key| server.is_named_by(key) && *key != server.key());
        for key in keys.iter().chain(spellings) {
            let Some(entry) = auths.get(key) else { continue };
            let found = credential(entry).map_err(|reason| CredentialError::Entry {
                path: self.path.clone(),
                server: server.key().to_owned(),
                reason,
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Replaces what `auths` has for a registry as a whole, under every spelling: one that was left would be found
    /// before the new one by some tool. Fields of the entry that we do not know stay. Without a credential, an entry
    /// without secrets is left, as Docker does for those that a helper keeps.
    pub(super) fn put(
        &mut self,
        server: &Server,
        credential: Option<&Credential>,
    ) -> Result<(), CredentialError> {
        let fields = credential.map(fields).transpose()?.unwrap_or_default();
        self.auths()?;
        let auths = self.root.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        if auths.is_null() {
            *auths = Value::Object(Map::new());
        }
        let Value::Object(auths) = auths else { return Ok(()) };
        let others: Vec<_> =
            auths.keys().filter(|key| server.is_named_by(key) && *key != server.key()).cloned().collect();
        for key in others {
            auths.shift_remove(&key);
        }
        let entry = auths.entry(server.key()).or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        if let Value::Object(entry) = entry {
            entry.retain(|name, _| !FIELDS.contains(&name.as_str()));
            entry.extend(fields);
        }
        Ok(())
    }

    /// Removes what `auths` has for a registry as a whole. Returns whether there was anything.
    pub(super) fn remove(&mut self, server: &Server) -> Result<bool, CredentialError> {
        self.auths()?;
        let Some(Value::Object(auths)) = self.root.get_mut("auths") else { return Ok(false) };
        let before = auths.len();
        auths.retain(|key, _| !server.is_named_by(key));
        Ok(auths.len() < before)
    }

    /// Writes the file: a new one with mode 0600, moved into the place of the old one when it is safely on the disk.
    /// A link stays, and its target is replaced.
    pub(super) fn write(&self) -> Result<(), CredentialError> {
        self.write_to_disk().map_err(|source| CredentialError::Write { path: self.path.clone(), source })
    }

    fn write_to_disk(&self) -> io::Result<()> {
        let path = resolve_links(&self.path)?;
        let directory = match path.parent() {
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
            None => return Err(io::ErrorKind::IsADirectory.into()),
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let private = fs::Permissions::from_mode(0o600);
        let mut file = tempfile::Builder::new()
            .prefix(".credentials-")
            .permissions(private.clone())
            .tempfile_in(directory)?;
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut text = Vec::new();
        serde::Serialize::serialize(
            &self.root,
            &mut serde_json::Serializer::with_formatter(&mut text, formatter),
        )?;
        text.push(b'\n');
        file.write_all(&text)?;
        // The umask may have taken bits away, but the mode is exactly this.
        file.as_file().set_permissions(private)?;
        if let Ok(old) = fs::metadata(&path) {
            // Under `sudo`, the file stays the user's. Docker, too, goes on where this is not allowed.
            drop(fchown(file.as_file(), Some(old.uid()), Some(old.gid())));
        }
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        File::open(directory)?.sync_all()
    }

    fn auths(&self) -> Result<Option<&Map<String, Value>>, CredentialError> {
        self.object("auths", "`auths` is no object")
    }

    fn object(
        &self,
        name: &str,
        reason: &'static str,
    ) -> Result<Option<&Map<String, Value>>, CredentialError> {
        match self.root.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(self.malformed(reason)),
        }
    }

    fn malformed(&self, reason: &'static str) -> CredentialError {
        CredentialError::Malformed { path: self.path.clone(), reason }
    }
}

/// What an entry of `auths` holds. Docker prefers a token to a password; `auth` to the two fields that it encodes.
fn credential(entry: &Value) -> Result<Option<Credential>, &'static str> {
    let entry = match entry {
        Value::Null => return Ok(None),
        Value::Object(entry) => entry,
        _ => return Err("it is no object"),
    };
    let field = |name: &str| match entry.get(name) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err("one of its fields is no string"),
    };
    let token = field("registrytoken")?;
    if !token.is_empty() {
        return Ok(Some(Credential::RegistryToken(token.into())));
    }
    let token = field("identitytoken")?;
    if !token.is_empty() {
        return Ok(Some(Credential::IdentityToken(token.into())));
    }
    let auth = field("auth")?.trim();
    let (username, password) = if auth.is_empty() {
        (field("username")?.to_owned(), field("password")?.to_owned())
    } else {
        let bytes = BASE64.decode(auth).map_err(|_| "its `auth` is not Base64")?;
        let text = String::from_utf8(bytes).map_err(|_| "its `auth` is not text")?;
        let (username, password) = text.split_once(':').ok_or("its `auth` holds no colon")?;
        // Old versions of Docker padded the text before they encoded it.
        (username.to_owned(), password.trim_matches('\0').to_owned())
    };
    // Neither Docker nor podman sends one without the other.
    let complete = !username.is_empty() && !password.is_empty();
    Ok(complete.then(|| Credential::Basic { username, password: password.into() }))
}

/// The fields of an entry of `auths` for a credential.
fn fields(credential: &Credential) -> Result<Map<String, Value>, CredentialError> {
    let (name, text) = match credential {
        Credential::Basic { username, password } => {
            if username.contains(':') {
                return Err(CredentialError::Unstorable { reason: "the user's name holds a colon" });
            }
            ("auth", BASE64.encode(format!("{username}:{}", password.reveal())))
        }
        Credential::IdentityToken(token) => ("identitytoken", token.reveal().to_owned()),
        Credential::RegistryToken(token) => ("registrytoken", token.reveal().to_owned()),
    };
    Ok(Map::from_iter([(name.to_owned(), Value::String(text))]))
}

/// The file that a path leads to, which need not exist.
fn resolve_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().map_or(target.clone(), |parent| parent.join(target)),
            // Not a link, or nothing there.
            Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::NotFound) => {
                return Ok(path);
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}
