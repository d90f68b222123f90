//! `bundle`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use layerstore::IdRange;

use super::IMAGE_ARG;

/// Make an OCI runtime bundle of an image, for runc, crun and the like
///
/// Creates a container, mounts its root filesystem at DIR/rootfs and writes DIR/config.json: the image's command,
/// user, environment, volumes and labels, with the mounts, capabilities and namespaces that Docker gives a container.
/// There is no seccomp profile, no resource limit and no network but the loopback device; what you want of these, add
/// to the file. DIR must not exist, or be empty.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  layerstore bundle app:1 ./app && crun run -b ./app my-app
  layerstore bundle --name web -u www-data -e DEBUG=1 app:1 /run/web
  layerstore bundle -t app:1 ./shell /bin/sh
  layerstore bundle --uid-map 0:100000:65536 app:1 ./app")]
pub(crate) struct Bundle {
    /// Name of the container [default: chosen]
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Run this instead of the image's entrypoint and command: a program, or a JSON list of it and its first
    /// arguments; an empty one removes them
    #[arg(long, value_name = "CMD", value_parser = entrypoint)]
    pub(crate) entrypoint: Option<Entrypoint>,

    /// Run as this user: a name or an ID, also with the group behind a colon
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub(crate) user: Option<String>,

    /// Set an environment variable; without a value, the one of this environment
    #[arg(short, long, value_name = "NAME[=VALUE]", value_parser = variable)]
    pub(crate) env: Vec<String>,

    /// Start in this directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,

    /// The container's hostname
    #[arg(long)]
    pub(crate) hostname: Option<String>,

    /// Make the root filesystem read-only; volumes can still be written to
    #[arg(long)]
    pub(crate) read_only: bool,

    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,

    /// What becomes of the image's volumes
    #[arg(long, value_name = "HOW", default_value = "tmpfs")]
    pub(crate) volumes: VolumeKind,

    /// User IDs of a user namespace: the first in the container, the first on the host, how many [default: those
    /// of --gidmap]
    #[arg(long = "uidmap", alias = "uid-map", value_name = "CONTAINER:HOST:COUNT")]
    pub(crate) uid_map: Vec<IdRange>,

    /// Group IDs of a user namespace [default: those of --uidmap]
    #[arg(long = "gidmap", alias = "gid-map", value_name = "CONTAINER:HOST:COUNT")]
    pub(crate) gid_map: Vec<IdRange>,

    #[arg(help = IMAGE_ARG)]
    pub(crate) image: String,

    /// Where to make the bundle
    pub(crate) dir: PathBuf,

    /// Arguments, in place of the image's command
    #[arg(value_name = "ARG", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

/// What becomes of volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VolumeKind {
    /// Each is kept in memory, and empty at first
    Tmpfs,
    /// Each is a directory below DIR/volumes, and empty at first
    Bind,
    /// They are part of the root filesystem
    Ignore,
}

/// A program and its first arguments; nothing removes the image's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entrypoint(pub(crate) Vec<String>);

/// As Podman has it: what looks like a list is one, anything else is the program.
fn entrypoint(text: &str) -> Result<Entrypoint, String> {
    if text.is_empty() {
        return Ok(Entrypoint(Vec::new()));
    }
    if !text.starts_with('[') {
        return Ok(Entrypoint(vec![text.to_owned()]));
    }
    serde_json::from_str(text).map(Entrypoint).map_err(|_| "it is not a JSON list of texts".to_owned())
}

fn variable(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err("it has no name".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Verb {
        #[command(flatten)]
        args: Bundle,
    }

    fn parse(words: &[&str]) -> Result<Bundle, clap::Error> {
        Verb::try_parse_from([&["bundle"], words].concat()).map(|verb| verb.args)
    }

    #[test]
    fn the_definition_is_sound() {
        Verb::command().debug_assert();
    }

    #[test]
    fn all_options_are_taken() {
        let args = parse(&[
            "--name",
            "web",
            "--entrypoint",
            "/bin/sh",
            "-u",
            "www-data:4",
            "-e",
            "A=b=c",
            "--env",
            "HOME",
            "-w",
            "/srv",
            "--hostname",
            "box",
            "--read-only",
            "-t",
            "--volumes",
            "bind",
            "--uid-map",
            "0:100000:65536",
            "--uid-map",
            "65536:1:1",
            "--gid-map",
            "0:1:2",
            "app:1",
            "dir",
            "-c",
            "--name",
            "x",
            "--",
        ])
        .unwrap();
        assert_eq!(args.name.as_deref(), Some("web"));
        assert_eq!(args.entrypoint, Some(Entrypoint(vec!["/bin/sh".to_owned()])));
        assert_eq!(args.user.as_deref(), Some("www-data:4"));
        assert_eq!(args.env, ["A=b=c", "HOME"]);
        assert_eq!(args.workdir.as_deref(), Some("/srv"));
        assert_eq!(args.hostname.as_deref(), Some("box"));
        assert!(args.read_only && args.tty);
        assert_eq!(args.volumes, VolumeKind::Bind);
        assert_eq!(args.uid_map[0], IdRange { container: 0, host: 100_000, count: 65_536 });
        assert_eq!((args.uid_map.len(), args.gid_map.len()), (2, 1));
        assert_eq!((args.image.as_str(), args.dir), ("app:1", "dir".into()));
        assert_eq!(args.args, ["-c", "--name", "x", "--"], "all that follows is the container's");
    }

    #[test]
    fn an_image_and_a_directory_are_enough() {
        let args = parse(&["app", "dir"]).unwrap();
        assert_eq!(args.volumes, VolumeKind::Tmpfs);
        assert_eq!((args.entrypoint, args.args.len(), args.env.len()), (None, 0, 0));
        assert!(!args.read_only && !args.tty && args.uid_map.is_empty());
    }

    #[test]
    fn entrypoints_are_words_or_lists() {
        let of = |text: &str| entrypoint(text).map(|found| found.0);
        assert_eq!(of(""), Ok(Vec::new()));
        assert_eq!(of("sh -c").unwrap(), ["sh -c"], "as with Docker, it is not split");
        assert_eq!(of(r#"["sh", "-c"]"#).unwrap(), ["sh", "-c"]);
        assert_eq!(of("[]"), Ok(Vec::new()));
        assert!(of("[sh]").is_err() && of("[1]").is_err());
    }

    #[test]
    fn wrong_usage_is_refused() {
        let lines: [&[&str]; 11] = [
            &[],
            &["app"],
            &["-e", "", "app", "dir"],
            &["-e", "=x", "app", "dir"],
            &["--volumes", "anonymous", "app", "dir"],
            &["--uid-map", "0:0", "app", "dir"],
            &["--uid-map", "0:0:1:1", "app", "dir"],
            &["--gid-map", "0:-1:1", "app", "dir"],
            &["--gid-map", "0:0:4294967296", "app", "dir"],
            &["--entrypoint", "[", "app", "dir"],
            &["--nope", "app", "dir"],
        ];
        for line in lines {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
    }
}
