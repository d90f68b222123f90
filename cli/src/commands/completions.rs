//! `layerstore completions`.

use clap::CommandFactory as _;

use crate::args::{Cli, Completions};
use crate::errors::Failure;
use crate::output::print;

pub(super) fn run(args: &Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "layerstore", &mut script);
    print(script)
}
