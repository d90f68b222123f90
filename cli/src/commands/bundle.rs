//! `layerstore bundle`.

use layerstore::{BundleOptions, CreateOptions, Volumes};

use crate::args::{Bundle, VolumeKind};
use crate::context::Context;
use crate::errors::Failure;
use crate::output::print;

/// Where the directories of volumes are, in the bundle.
const VOLUMES: &str = "volumes";

pub(super) fn run(context: &Context, args: &Bundle) -> Result<(), Failure> {
    let create = CreateOptions { name: args.name.clone(), ..CreateOptions::default() };
    let options = options(args, crate::context::variable);
    let store = context.store()?;
    let progress = context.progress();
    let bundle = store.bundle(&args.image, &args.dir, &create, &options, &|event| progress.tell(&event))?;
    for note in &bundle.notes {
        progress.note(note);
    }
    drop(progress);
    print(format!("{}\n", bundle.container.id))
}

/// What the arguments ask for. `environment` gives this process's variables: where it has none of a name that comes
/// without a value, the image's is removed, as Docker does.
fn options(args: &Bundle, environment: impl Fn(&str) -> Option<String>) -> BundleOptions {
    let variable = |given: &String| match environment(given) {
        Some(value) if !given.contains('=') => format!("{given}={value}"),
        _ => given.clone(),
    };
    // As Podman: who gives one map means both.
    let either = |map: &Vec<_>, other: &Vec<_>| if map.is_empty() { other.clone() } else { map.clone() };
    BundleOptions {
        entrypoint: args.entrypoint.as_ref().map(|entrypoint| entrypoint.0.clone()),
        args: args.args.clone(),
        user: args.user.clone(),
        env: args.env.iter().map(variable).collect(),
        workdir: args.workdir.clone(),
        hostname: args.hostname.clone(),
        read_only: args.read_only,
        terminal: args.tty,
        no_new_privileges: false,
        volumes: match args.volumes {
            VolumeKind::Tmpfs => Volumes::Tmpfs,
            VolumeKind::Bind => Volumes::Bind(VOLUMES.into()),
            VolumeKind::Ignore => Volumes::Ignore,
        },
        uid_map: either(&args.uid_map, &args.gid_map),
        gid_map: either(&args.gid_map, &args.uid_map),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use layerstore::IdRange;

    use super::*;

    #[derive(Debug, Parser)]
    struct Verb {
        #[command(flatten)]
        args: Bundle,
    }

    fn of(line: &str) -> BundleOptions {
        let verb = Verb::parse_from(std::iter::once("bundle").chain(line.split(' ')));
        options(&verb.args, |name| (name == "HERE").then(|| "value".to_owned()))
    }

    #[test]
    fn nothing_given_changes_nothing() {
        assert_eq!(of("app dir"), BundleOptions::default());
    }

    #[test]
    fn arguments_become_options() {
        let options = of("--entrypoint a -u u -w /w --hostname h --read-only -t --volumes bind app dir b -c");
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            options,
            BundleOptions {
                entrypoint: Some(vec!["a".to_owned()]),
                args: ["b", "-c"].map(str::to_owned).to_vec(),
                user: text("u"),
                workdir: text("/w"),
                hostname: text("h"),
                read_only: true,
                terminal: true,
                volumes: Volumes::Bind("volumes".into()),
                ..BundleOptions::default()
            }
        );
        assert_eq!(of("--volumes ignore app dir").volumes, Volumes::Ignore);
    }

    #[test]
    fn variables_without_a_value_are_those_of_this_process() {
        assert_eq!(of("-e A=1 -e HERE -e GONE -e HERE= app dir").env, ["A=1", "HERE=value", "GONE", "HERE="]);
    }

    #[test]
    fn one_map_stands_for_both() {
        let range = |container, host, count| vec![IdRange { container, host, count }];
        for line in ["--uid-map 0:1:2 app dir", "--gid-map 0:1:2 app dir"] {
            let options = of(line);
            assert_eq!((options.uid_map, options.gid_map), (range(0, 1, 2), range(0, 1, 2)), "{line}");
        }
        let options = of("--uid-map 0:1:2 --gid-map 3:4:5 app dir");
        assert_eq!((options.uid_map, options.gid_map), (range(0, 1, 2), range(3, 4, 5)));
    }
}
