//! The `layerstore` command: parse, call the engine, print.
//!
//! Data goes to standard output, talk (errors, progress, logs) to standard error. Only here are
//! environment variables read.

mod args;
mod commands;
mod context;
mod errors;
mod format;
mod new_file;
mod output;
mod picture;
mod progress;
mod registry;
mod template;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;

use args::{Cli, When};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let colour = match cli.global.color {
        When::Always => true,
        When::Never => false,
        When::Auto => std::io::stderr().is_terminal() && context::colours_wanted(),
    };
    context::start_log(&cli.global, colour);
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failures) => {
            for failure in &failures.0 {
                failure.report(colour);
            }
            ExitCode::from(failures.exit() as u8)
        }
    }
}
