//! `import`.

use std::path::PathBuf;

use clap::Args;
use layerstore::oci::Change;

pub(super) const CHANGE_HELP: &str = "\
Change how containers of the image run, with an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, \
HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME or WORKDIR; may be given several times";

/// Make an image of a root filesystem in a tar archive
///
/// Takes a tar archive as `docker export` and `tar -c` write it, plain or compressed with gzip or zstd, and makes an
/// image of one layer of it. The bytes become the layer as they are. Prints the image's ID. An archive of images is
/// for `load`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Environment: SOURCE_DATE_EPOCH (seconds since 1970) is the time at which the image was made. With it, importing the
same again gives the same image.

Examples:
  layerstore import rootfs.tar.gz base:1
  layerstore import -c 'CMD [\"/bin/sh\"]' -c 'ENV LANG=C.UTF-8 TERM=xterm' rootfs.tar base:1
  tar -C rootfs -c . | layerstore import - base:1")]
pub(crate) struct Import {
    #[arg(short, long = "change", value_name = "INSTRUCTION", value_parser = Change::parse, help = CHANGE_HELP)]
    pub(crate) changes: Vec<Change>,

    /// Where it comes from, for the image's history [default: Imported from FILE]
    #[arg(short, long)]
    pub(crate) message: Option<String>,

    /// What its programs run on [default: this machine's platform]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,

    /// What to import; `-` is standard input
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,

    /// The name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) name: Option<String>,
}
