//! The process: what to run, as whom, where, and with which environment.

use layerstore_oci::ContainerConfig;
use serde_json::{Value, json};

use super::accounts::Account;
use super::error::BundleError;
use super::{BundleOptions, clean, defaults, refuse_nul};
use crate::error::Result;

/// Docker's `PATH` for images that have none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) fn process(image: &ContainerConfig, account: &Account, options: &BundleOptions) -> Result<Value> {
    Ok(json!({
        "terminal": options.terminal,
        "user": { "uid": account.uid, "gid": account.gid, "additionalGids": account.groups },
        "args": args(image, options)?,
        "env": env(image, account, options)?,
        "cwd": cwd(image, options)?,
        "capabilities": defaults::capabilities(account.uid),
        "noNewPrivileges": options.no_new_privileges,
    }))
}

fn args(image: &ContainerConfig, options: &BundleOptions) -> Result<Vec<String>> {
    let entrypoint = options.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    // The image's command is meant for the image's entrypoint.
    let command =
        if options.args.is_empty() && options.entrypoint.is_none() { &image.cmd } else { &options.args };
    let args: Vec<String> = entrypoint.iter().chain(command).cloned().collect();
    if args.first().is_none_or(String::is_empty) {
        return Err(BundleError::NoCommand.into());
    }
    for arg in &args {
        refuse_nul("the command", arg)?;
    }
    Ok(args)
}

fn env(image: &ContainerConfig, account: &Account, options: &BundleOptions) -> Result<Vec<String>> {
    let mut env = Environment(Vec::new());
    env.set("PATH", DEFAULT_PATH);
    if let Some(hostname) = &options.hostname {
        env.set("HOSTNAME", hostname);
    }
    if options.terminal {
        env.set("TERM", "xterm");
    }
    env.set("HOME", &account.home);
    for entry in image.env.iter().chain(&options.env) {
        refuse_nul("the environment", entry)?;
        // An empty name is none, and the runtimes refuse it.
        match entry.split_once('=') {
            Some(("", _)) => {}
            Some((name, value)) => env.set(name, value),
            None => env.0.retain(|(name, _)| name != entry),
        }
    }
    // Where it is missing or empty runc looks it up in the list of users, so it is said here in any case.
    if !env.0.iter().any(|(name, value)| name == "HOME" && !value.is_empty()) {
        env.set("HOME", &account.home);
    }
    Ok(env.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
}

/// Variables in the order in which their names came first.
struct Environment(Vec<(String, String)>);

impl Environment {
    fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }
}

fn cwd(image: &ContainerConfig, options: &BundleOptions) -> Result<String> {
    let path = options.workdir.as_ref().unwrap_or(&image.working_dir);
    refuse_nul("the working directory", path)?;
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    if !path.starts_with('/') {
        return Err(BundleError::RelativeWorkdir { path: path.clone() }.into());
    }
    Ok(clean(path))
}
