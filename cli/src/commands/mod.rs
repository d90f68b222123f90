//! One module per verb.

// For the tests, until there is a store of containers for the verb to work on.
mod bundle;
mod cat;
mod completions;
mod containers;
mod df;
mod gc;
mod history;
mod images;
mod import;
mod info;
mod inspect;
mod limits;
mod load;
mod login;
mod logout;
mod ls;
mod manifest;
mod mount;
mod pins;
mod prune;
mod ps;
mod pull;
mod push;
mod rmi;
mod save;
mod search;
mod tag;
mod tree_diff;
mod umount;
mod version;
mod why;

use crate::args::{Cli, Command};
use crate::context::Context;
use crate::errors::{Failure, Failures};
use crate::output::print;
use crate::template::{Shape, Template, Value};

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<(), Failures> {
    let context = Context::new(cli.global);
    match cli.command.resolve() {
        Command::Pull(args) => pull::run(&context, &args)?,
        Command::Push(args) => push::run(&context, &args)?,
        Command::Search(args) => search::run(&context, &args)?,
        Command::Manifest(verb) => manifest::run(&context, &verb)?,
        Command::Load(args) => load::run(&context, &args)?,
        Command::Import(args) => import::run(&context, &args)?,
        Command::Save(args) => save::run(&context, &args)?,
        Command::Images(args) => images::run(&context, &args)?,
        Command::Inspect(args) => inspect::run(&context, &args)?,
        Command::History(args) => history::run(&context, &args)?,
        Command::Tag(args) => tag::run(&context, &args)?,
        Command::Rmi(args) => rmi::run(&context, &args)?,
        Command::Pin(args) => pins::pin(&context, &args)?,
        Command::Unpin(args) => pins::unpin(&context, &args)?,
        Command::Create(args) => containers::create(&context, &args)?,
        Command::Ps(args) => ps::run(&context, &args)?,
        Command::Rm(args) => containers::remove(&context, &args)?,
        Command::Rename(args) => containers::rename(&context, &args)?,
        Command::Diff(args) => containers::diff(&context, &args)?,
        Command::Export(args) => containers::export(&context, &args)?,
        Command::Commit(args) => containers::commit(&context, &args)?,
        Command::Bundle(args) => bundle::run(&context, &args)?,
        Command::Mount(args) => mount::run(&context, &args)?,
        Command::Umount(args) => umount::run(&context, &args)?,
        Command::Ls(args) => ls::run(&context, &args)?,
        Command::Cat(args) => cat::run(&context, &args)?,
        Command::TreeDiff(args) => tree_diff::run(&context, &args)?,
        Command::Df(args) => df::run(&context, &args)?,
        Command::Gc(args) => gc::run(&context, &args)?,
        Command::Why(args) => why::run(&context, &args)?,
        Command::ImagePrune(args) => prune::images(&context, &args)?,
        Command::ContainerPrune(args) => prune::containers(&context, &args)?,
        Command::SystemPrune(args) => prune::system(&context, &args)?,
        Command::Login(args) => login::run(&context, args)?,
        Command::Logout(args) => logout::run(&context, &args)?,
        Command::Limits(args) => limits::run(&context, &args)?,
        Command::Info(args) => info::run(&context, &args)?,
        Command::Version(args) => version::run(&args)?,
        Command::Completions(args) => completions::run(&args)?,
        // Replaced by the verb it holds.
        Command::Image(_) | Command::Container(_) | Command::System(_) => {}
    }
    Ok(())
}

/// Prints one object: as `text`, or as `--format` wants it.
fn print_object(
    object: &serde_json::Value,
    format: Option<&str>,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = match format {
        None => text(),
        Some("json") => format!("{object}\n"),
        Some(template) => {
            let value = Value::from_json(object, Shape::default());
            Template::parse(template)?.render(&value)? + "\n"
        }
    };
    print(text)
}
