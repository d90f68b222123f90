use clap::CommandFactory;
use clap::error::ErrorKind;
use clap_complete::Shell;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("layerstore").chain(line.split_whitespace()))
}

fn verb(line: &str) -> Command {
    parse(line).unwrap().command.resolve()
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn global_options_stand_before_or_behind_the_verb() {
    for line in ["--root /x -q -vv --progress plain images", "images --root /x -q -vv --progress plain"] {
        let global = parse(line).unwrap().global;
        assert_eq!(global.root, Some("/x".into()), "{line}");
        assert!(global.quiet, "{line}");
        assert_eq!(global.verbose, 2, "{line}");
        assert_eq!(global.progress, ProgressForm::Plain, "{line}");
    }
    let global = parse("info").unwrap().global;
    assert_eq!((global.log_format, global.color), (LogFormat::Text, When::Auto));
}

#[test]
fn quiet_of_a_listing_is_also_the_global_one() {
    for line in ["images -q", "-q images", "image ls -q", "image -q ls"] {
        assert!(matches!(verb(line), Command::Images(Images { quiet: true, .. })), "{line}");
        assert!(parse(line).unwrap().global.quiet, "{line}");
    }
    assert!(matches!(verb("history -q x"), Command::History(History { quiet: true, .. })));
}

#[test]
fn verbs_have_their_other_names() {
    for line in ["images", "image ls", "image list"] {
        assert!(matches!(verb(line), Command::Images(_)), "{line}");
    }
    for line in ["rmi x", "image rm x", "image remove x"] {
        assert!(matches!(verb(line), Command::Rmi(_)), "{line}");
    }
    for line in ["umount x", "unmount x", "image umount x", "image unmount x"] {
        assert!(matches!(verb(line), Command::Umount(_)), "{line}");
    }
    for line in ["inspect x y", "image inspect x y"] {
        assert!(matches!(verb(line), Command::Inspect(Inspect { names, .. }) if names.len() == 2), "{line}");
    }
    assert!(matches!(verb("image mount x /mnt"), Command::Mount(Mount { dir: Some(_), .. })));
    assert!(matches!(verb("image tag x y"), Command::Tag(_)));
    for line in ["save x", "image save -o f --format oci-archive x y", "save --format docker-archive x"] {
        assert!(matches!(verb(line), Command::Save(_)), "{line}");
    }
    assert!(matches!(verb("image history x"), Command::History(_)));
}

#[test]
fn docker_spellings_are_taken() {
    assert!(matches!(verb("load -i -"), Command::Load(Load { input: Some(i), .. }) if i.as_os_str() == "-"));
    assert!(matches!(
        verb("load --input x --platform linux/arm64/v8 --no-unpack"),
        Command::Load(Load { no_unpack: true, .. })
    ));
    let line = "import -c USER=me --change CMD=x -m hi --platform linux/arm64 - a:1";
    assert!(
        matches!(verb(line), Command::Import(Import { name: Some(_), changes, .. }) if changes.len() == 2)
    );
    assert!(matches!(verb("image import x"), Command::Import(Import { name: None, .. })));
    assert!(matches!(verb("images -a --digests --no-trunc -f dangling=true --filter label=a app"),
        Command::Images(Images { all: true, digests: true, no_trunc: true, filter, pattern: Some(_), .. }) if filter.len() == 2));
    assert!(matches!(verb("history x"), Command::History(History { human: true, .. })));
    assert!(matches!(verb("history --human x"), Command::History(History { human: true, .. })));
    assert!(matches!(verb("history -H x"), Command::History(History { human: true, .. })));
    assert!(matches!(verb("history --human=false x"), Command::History(History { human: false, .. })));
    assert!(matches!(
        verb("rmi -f --no-prune a b"),
        Command::Rmi(Remove { force: true, no_prune: true, .. })
    ));
    assert!(matches!(verb("umount -a"), Command::Umount(Umount { all: true, .. })));
    assert!(matches!(
        verb("ls -laR x /etc"),
        Command::Ls(List { long: true, all: true, recursive: true, .. })
    ));
    assert!(matches!(verb("ls x"), Command::Ls(List { path, .. }) if path == "/"));
    assert!(matches!(verb("cat x a b"), Command::Cat(Cat { paths, .. }) if paths.len() == 2));
    assert!(matches!(verb("gc --dry-run"), Command::Gc(Gc { dry_run: true, .. })));
    assert!(matches!(verb("inspect -f {{.Id}} x"), Command::Inspect(Inspect { format: Some(_), .. })));
    assert!(matches!(verb("completions zsh"), Command::Completions(Completions { shell: Shell::Zsh })));
}

#[test]
fn wrong_usage_exits_2() {
    let lines = [
        "frobnicate",
        "images a b",
        "images --filter size=1",
        "images --nope",
        "inspect",
        "tag x",
        "rmi",
        "mount a b c",
        "umount",
        "umount -a x",
        "cat x",
        "save",
        "save --format docker-dir x",
        "import",
        "import -c RUN=x x",
        "completions elvish-ish",
        "--progress loud images",
        "",
        "image",
    ];
    for line in lines {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    for line in ["--help", "images --help", "--version"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 0, "{line}");
    }
    assert_eq!(parse("--version").unwrap_err().kind(), ErrorKind::DisplayVersion);
}

#[test]
fn help_texts() {
    let mut all = String::new();
    let mut command = Cli::command().term_width(100);
    command.build();
    all.push_str(&command.render_long_help().to_string());
    for verb in command.get_subcommands_mut() {
        all.extend(["\n──── ", verb.get_name(), " ────\n"]);
        let text = verb.render_long_help().to_string();
        // The global options are the same everywhere.
        all.push_str(text.split("Global options:").next().unwrap_or_default());
        if let Some((_, after)) = text.rsplit_once("\n\n")
            && text.contains("Example")
        {
            all.push_str(after);
        }
    }
    insta::assert_snapshot!(all);
}
