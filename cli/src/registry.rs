//! How registries are reached: what the command line, the environment and this machine's files say.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use layerstore::oci::Reference;
use layerstore::registry::{
    AuthFiles, Client, Credential, Error, FixedCredential, HostOptions, Options, Proxies, Retry,
};

use crate::args::RegistryArgs;
use crate::errors::Failure;

/// Where nodes have the configuration of registries.
const CONTAINERD_DIRS: [&str; 1] = ["/etc/containerd/certs.d"];
const DOCKER_DIRS: [&str; 1] = ["/etc/docker/certs.d"];

/// A client for the registries of `references`.
pub(crate) fn client<'a>(
    args: &RegistryArgs,
    references: impl IntoIterator<Item = &'a Reference>,
) -> Result<Client, Failure> {
    let mut hosts = hosts(args);
    if args.insecure {
        hosts.insecure.extend(references.into_iter().map(|reference| reference.domain().to_owned()));
    }
    let credentials = Some(Arc::new(auth_files(args.authfile.as_deref())) as _);
    let retry = retry(&args.registry_retry, Retry::default())?;
    let options = Options { hosts, credentials, proxies: proxies(), retry };
    Ok(Client::new(options).map_err(layerstore::Error::from)?)
}

/// A client that shows `credential` to the registry `name`, to find out whether it is good.
pub(crate) fn login_client(
    args: &RegistryArgs,
    name: &str,
    credential: Credential,
) -> Result<Client, Failure> {
    let mut hosts = hosts(args);
    if args.insecure {
        hosts.insecure.push(name.to_owned());
    }
    let fixed =
        FixedCredential::new(name, credential).map_err(Error::from).map_err(layerstore::Error::from)?;
    // Somebody is waiting, and can try again.
    let retry = retry(&args.registry_retry, Retry { attempts: 2, ..Retry::default() })?;
    let options = Options { hosts, credentials: Some(Arc::new(fixed)), proxies: proxies(), retry };
    Ok(Client::new(options).map_err(layerstore::Error::from)?)
}

/// What `--registry-retry` says, and `retry` where it says nothing.
fn retry(given: &[(String, String)], mut retry: Retry) -> Result<Retry, Failure> {
    for (key, value) in given {
        let known = match key.as_str() {
            "attempts" => value.parse().ok().filter(|number| *number > 0).map(|n| retry.attempts = n),
            "wait" => duration(value).map(|time| retry.first_wait = time),
            "longest" => duration(value).map(|time| retry.longest_wait = time),
            "stall" => duration(value).map(|time| retry.stall = time),
            "rate" => value.parse().ok().map(|rate| retry.least_rate = rate),
            _ => None,
        };
        if known.is_none() {
            return Err(Failure::usage(format!("`{key}={value}` is not a setting of --registry-retry")));
        }
    }
    Ok(retry)
}

/// `10ms` or `2s`.
fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(number) => Some(Duration::from_millis(number.parse().ok()?)),
        None => Some(Duration::from_secs(text.strip_suffix('s')?.parse().ok()?)),
    }
}

fn hosts(args: &RegistryArgs) -> HostOptions {
    let given = !args.hosts_dir.is_empty();
    let paths = |fixed: &[&str]| {
        if given { args.hosts_dir.clone() } else { fixed.iter().map(PathBuf::from).collect() }
    };
    HostOptions {
        containerd: paths(&CONTAINERD_DIRS),
        docker: paths(&DOCKER_DIRS),
        insecure: Vec::new(),
        plain_http: args.plain_http,
    }
}

/// The file that was named, alone; else those of Docker and of podman, in this order.
pub(crate) fn auth_files(authfile: Option<&Path>) -> AuthFiles {
    let files = match authfile {
        Some(file) => vec![file.to_owned()],
        None => default_auth_files(|name| env::var_os(name).map(PathBuf::from)),
    };
    AuthFiles::new(files)
}

/// docker-login(1) and containers-auth.json(5).
fn default_auth_files(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let absolute = |name: &str| variable(name).filter(|path| path.is_absolute());
    let home = absolute("HOME");
    let docker = variable("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let runtime = absolute("XDG_RUNTIME_DIR").unwrap_or_else(|| {
        Path::new("/run/containers").join(rustix::process::geteuid().as_raw().to_string())
    });
    let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
    let mut files: Vec<PathBuf> = docker.map(|directory| directory.join("config.json")).into_iter().collect();
    let runtime = if runtime.starts_with("/run/containers") { runtime } else { runtime.join("containers") };
    files.push(runtime.join("auth.json"));
    files.extend(config.map(|directory| directory.join("containers/auth.json")));
    files
}

/// Both spellings of the variables count, as with curl and Go; `HTTP_PROXY` in capitals is what a web server might be
/// made to set for its scripts, so those of a CGI script do not count.
fn proxies() -> Proxies {
    let value = |names: [&str; 2]| {
        names.into_iter().find_map(|name| env::var(name).ok()).filter(|value| !value.is_empty())
    };
    let http = if env::var_os("REQUEST_METHOD").is_some() {
        value(["http_proxy", "http_proxy"])
    } else {
        value(["http_proxy", "HTTP_PROXY"])
    };
    Proxies {
        http,
        https: value(["https_proxy", "HTTPS_PROXY"]),
        all: value(["all_proxy", "ALL_PROXY"]),
        no_proxy: value(["no_proxy", "NO_PROXY"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_set_one_by_one() {
        let set = |given: &[(&str, &str)]| {
            let given: Vec<_> =
                given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            retry(&given, Retry::default()).ok()
        };
        let first_wait = Duration::from_millis(10);
        let wanted =
            Retry { attempts: 3, first_wait, longest_wait: Duration::from_secs(2), ..Retry::default() };
        assert_eq!(set(&[("attempts", "3"), ("wait", "10ms"), ("longest", "2s")]), Some(wanted));
        assert_eq!(set(&[("stall", "30s"), ("rate", "1024")]), Some(Retry::default()));
        for wrong in [("attempts", "0"), ("wait", "10"), ("rate", "-1"), ("other", "1")] {
            assert_eq!(set(&[wrong]), None, "{wrong:?}");
        }
    }

    #[test]
    fn credentials_are_where_docker_and_podman_have_them() {
        let with = |variables: &[(&str, &str)]| {
            default_auth_files(|name| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| PathBuf::from(value))
            })
        };
        let home = ("HOME", "/home/u");
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(
            with(&[home, runtime]),
            [
                Path::new("/home/u/.docker/config.json"),
                Path::new("/run/user/7/containers/auth.json"),
                Path::new("/home/u/.config/containers/auth.json"),
            ]
        );
        assert_eq!(with(&[("DOCKER_CONFIG", "/d"), runtime])[0], Path::new("/d/config.json"));
        assert!(with(&[home])[1].starts_with("/run/containers"));
    }
}
