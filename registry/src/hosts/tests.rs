use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// Directories of containerd and of Docker.
struct Configuration {
    folder: TempDir,
    options: HostOptions,
}

impl Configuration {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = |name: &str| vec![folder.path().join(name)];
        let options =
            HostOptions { containerd: root("containerd"), docker: root("docker"), ..HostOptions::default() };
        Self { folder, options }
    }

    /// With one `hosts.toml`.
    fn of(name: &str, text: &str) -> Self {
        Self::new().with(&format!("containerd/{name}/hosts.toml"), text)
    }

    fn with(self, path: &str, content: &str) -> Self {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn insecure(mut self, entries: &[&str]) -> Self {
        self.options.insecure = entries.iter().map(|&entry| entry.to_owned()).collect();
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn hosts(&self, domain: &str) -> Vec<Host> {
        self.options.hosts(domain).unwrap()
    }

    /// What is tried in turn: `BASE`, or `BASE|ALTERNATIVE`, with `!` if any certificate will do.
    fn tried(&self, domain: &str) -> Vec<String> {
        let shown = |host: &Host| {
            let alternative = host.alternative.as_ref().map(|url| format!("|{url}")).unwrap_or_default();
            format!("{}{alternative}{}", host.base, if host.tls.skip_verify { "!" } else { "" })
        };
        self.hosts(domain).iter().map(shown).collect()
    }

    fn refused(&self, domain: &str) -> String {
        let error = self.options.hosts(domain).unwrap_err();
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        format!("{error}{}", cause.unwrap_or_default())
    }
}

#[test]
fn without_configuration_a_registry_is_spoken_to_by_its_name() {
    let none = Configuration::new();
    for (domain, tried) in [
        ("docker.io", "https://registry-1.docker.io/v2/"),
        ("index.docker.io", "https://registry-1.docker.io/v2/"),
        ("quay.io", "https://quay.io/v2/"),
        ("registry.example:5000", "https://registry.example:5000/v2/"),
        ("192.0.2.1:5000", "https://192.0.2.1:5000/v2/"),
        ("[2001:db8::1]:5000", "https://[2001:db8::1]:5000/v2/"),
    ] {
        assert_eq!(none.tried(domain), [tried], "{domain}");
        let host = &none.hosts(domain)[0];
        assert_eq!((host.namespace.as_ref(), host.capabilities), (None, Capabilities::ALL));
    }
}

#[test]
fn this_machine_is_spoken_to_in_the_scheme_that_its_port_suggests() {
    let none = Configuration::new();
    for (domain, tried) in [
        ("localhost:5000", "http://localhost:5000/v2/|https://localhost:5000/v2/!"),
        ("127.0.0.2:5000", "http://127.0.0.2:5000/v2/|https://127.0.0.2:5000/v2/!"),
        ("[::1]:5000", "http://[::1]:5000/v2/|https://[::1]:5000/v2/!"),
        ("localhost", "https://localhost/v2/|http://localhost/v2/!"),
        ("localhost:443", "https://localhost/v2/!"),
        ("localhost:80", "http://localhost/v2/"),
        ("localhost.example:5000", "https://localhost.example:5000/v2/"),
    ] {
        assert_eq!(none.tried(domain), [tried], "{domain}");
    }
}

#[test]
fn this_machine_is_checked_where_certificates_are_configured_for_it() {
    let docker = Configuration::new().with("docker/localhost:5000/ca.crt", "");
    assert_eq!(docker.tried("localhost:5000"), ["https://localhost:5000/v2/"]);
    let ca = Configuration::of("localhost:5000", "ca = 'ca.pem'");
    assert_eq!(ca.tried("localhost:5000"), ["https://localhost:5000/v2/"]);
    let skip = Configuration::of("_default", "skip_verify = true");
    assert_eq!(skip.tried("localhost:5000"), ["https://localhost:5000/v2/|http://localhost:5000/v2/!"]);
    assert_eq!(skip.tried("quay.io"), ["https://quay.io/v2/!"]);
}

#[test]
fn insecure_registries_are_not_checked_and_may_speak_plain_http() {
    let names = ["reg.example:5000", "http://plain.example/", "10.0.0.0/8", "fd00::/8"];
    let insecure =
        Configuration::of("mirrored.example", "[host.'https://reg.example:5000']").insecure(&names);
    for (domain, tried) in [
        ("reg.example:5000", "https://reg.example:5000/v2/|http://reg.example:5000/v2/!"),
        ("REG.example:5000", "https://reg.example:5000/v2/|http://reg.example:5000/v2/!"),
        ("reg.example", "https://reg.example/v2/"),
        ("reg.example:5001", "https://reg.example:5001/v2/"),
        ("plain.example", "https://plain.example/v2/|http://plain.example/v2/!"),
        ("10.1.2.3:443", "https://10.1.2.3/v2/|http://10.1.2.3:443/v2/!"),
        ("[fd00::1]", "https://[fd00::1]/v2/|http://[fd00::1]/v2/!"),
        ("11.1.2.3", "https://11.1.2.3/v2/"),
    ] {
        assert_eq!(insecure.tried(domain), [tried], "{domain}");
    }
    // A file that says `https` means it.
    assert_eq!(insecure.tried("mirrored.example")[0], "https://reg.example:5000/v2/!");
    for entry in ["10.0.0.0/33", "a/b", "", "a b", "*.example"] {
        let error = Configuration::new().insecure(&[entry]).refused("quay.io");
        assert!(error.starts_with(&format!("insecure registry {entry:?}: ")), "{error}");
    }
}

#[test]
fn plain_http_is_for_registries_of_which_nothing_is_known() {
    let mut plain = Configuration::of("known.example", "ca = 'a'")
        .with("containerd/url.example/hosts.toml", "server = 'https://u'");
    plain.options.plain_http = true;
    assert_eq!(plain.tried("reg.example:5000"), ["http://reg.example:5000/v2/"]);
    assert_eq!(plain.tried("localhost:5000"), ["http://localhost:5000/v2/"]);
    assert_eq!(plain.tried("docker.io"), ["https://registry-1.docker.io/v2/"]);
    assert_eq!(plain.tried("known.example"), ["https://known.example/v2/"]);
    assert_eq!(plain.tried("url.example"), ["https://u/v2/"]);
}

#[test]
fn mirrors_come_in_the_order_of_the_file_and_the_registry_last() {
    let mirrors = Configuration::of(
        "docker.io",
        r#"
        server = "https://registry-1.docker.io"
        [host."https://zebra.example"]
          capabilities = ["pull"]
        [host."https://apple.example:8443/some/prefix"]
          capabilities = ["Pull", "resolve"]
          ca = "apple.crt"
        [host."http://mango.example".header]
          x-first = "1"
        [host."banana.example"]
        "#,
    );
    assert_eq!(
        mirrors.tried("docker.io"),
        [
            "https://zebra.example/v2/",
            "https://apple.example:8443/some/prefix/v2/",
            "http://mango.example/v2/",
            "https://banana.example/v2/",
            "https://registry-1.docker.io/v2/",
        ]
    );
    let hosts = mirrors.hosts("index.docker.io");
    let can = |host: &Host| (host.capabilities.pull, host.capabilities.resolve, host.capabilities.push);
    assert_eq!(
        hosts.iter().map(can).collect::<Vec<_>>()[..3],
        [(true, false, false), (true, true, false), (true, true, true)]
    );
    assert_eq!(hosts[1].tls.authorities, [mirrors.path("containerd/docker.io/apple.crt")]);
    let namespaces: Vec<_> = hosts.iter().map(|host| host.namespace.as_deref()).collect();
    assert_eq!(
        namespaces,
        [Some("docker.io"), Some("docker.io"), Some("docker.io"), Some("docker.io"), None]
    );
}

#[test]
fn a_server_takes_the_place_of_the_registry() {
    let only = Configuration::of(
        "_default",
        "server = 'https://mirror.example'\ncapabilities = ['pull', 'resolve']",
    );
    let host = &only.hosts("quay.io")[0];
    assert_eq!(
        (host.base.as_str(), host.namespace.as_deref()),
        ("https://mirror.example/v2/", Some("quay.io"))
    );
    assert!(!host.capabilities.push);
    let upstream = Configuration::of("_default", "[host.'https://mirror.example']");
    assert_eq!(upstream.tried("quay.io"), ["https://mirror.example/v2/", "https://quay.io/v2/"]);
    // The example of containerd's documentation: this name does not have the API.
    let docker = Configuration::of("docker.io", "server = 'https://docker.io'");
    assert_eq!(docker.tried("docker.io"), ["https://registry-1.docker.io/v2/"]);
    assert_eq!(docker.hosts("docker.io")[0].namespace, None);
}

#[test]
fn the_first_directory_that_has_anything_is_the_only_one() {
    let order =
        ["a/reg.example_5000_", "a/reg.example:5000", "a/_default", "b/reg.example_5000_", "b/_default"];
    let mut many = Configuration::new();
    many.options.containerd = vec![many.path("none"), many.path("a"), many.path("b")];
    for (index, directory) in order.iter().enumerate() {
        many = many.with(&format!("{directory}/hosts.toml"), &format!("server = 'https://s{index}'"));
    }
    for (index, directory) in order.iter().enumerate() {
        assert_eq!(many.tried("reg.example:5000"), [format!("https://s{index}/v2/")]);
        fs::remove_dir_all(many.path(directory)).unwrap();
    }
    assert_eq!(many.tried("reg.example:5000"), ["https://reg.example:5000/v2/"]);
    let other_port = Configuration::of("reg.example", "server = 'https://s'");
    assert_eq!(other_port.tried("reg.example:5000"), ["https://reg.example:5000/v2/"]);
    // Present, and it says nothing.
    let empty =
        Configuration::of("reg.example", "").with("containerd/_default/hosts.toml", "server = 'https://s'");
    assert_eq!(empty.tried("reg.example"), ["https://reg.example/v2/"]);
}

#[test]
fn the_path_is_that_of_the_api_unless_overridden() {
    for (url, plain, overridden) in [
        ("https://m", "https://m/v2/", "https://m/"),
        ("https://m/", "https://m/v2/", "https://m/"),
        ("https://m/v2", "https://m/v2/", "https://m/v2/"),
        ("https://m/v2/", "https://m/v2/", "https://m/v2/"),
        ("https://m/a/b/", "https://m/a/b/v2/", "https://m/a/b/"),
        ("https://m/a/v2", "https://m/a/v2/", "https://m/a/v2/"),
        ("https://m/a/../b", "https://m/b/v2/", "https://m/b/"),
        ("m:5000/a", "https://m:5000/a/v2/", "https://m:5000/a/"),
    ] {
        let text = format!("[host.'{url}']\n[host.'x']\n");
        assert_eq!(Configuration::of("r", &text).tried("r")[0], plain, "{url}");
        let text = format!("[host.'{url}']\noverride_path = true\n");
        assert_eq!(Configuration::of("r", &text).tried("r")[0], overridden, "{url}");
    }
}

#[test]
fn plain_http_with_certificates_is_tried_with_tls_first() {
    let text = |url: &str| format!("[host.'{url}']\nskip_verify = true\n");
    for (url, tried) in [
        ("http://192.0.2.1:5000", "https://192.0.2.1:5000/v2/|http://192.0.2.1:5000/v2/!"),
        ("http://m", "https://m/v2/|http://m/v2/!"),
        ("http://m:80", "http://m/v2/!"),
        ("http://m:80/a", "http://m/a/v2/!"),
    ] {
        assert_eq!(Configuration::of("r", &text(url)).tried("r")[0], tried);
    }
    // Also on this machine a URL is taken as it is.
    assert_eq!(
        Configuration::of("r", "server = 'http://localhost:5000'").tried("r"),
        ["http://localhost:5000/v2/"]
    );
    assert_eq!(
        Configuration::of("r", "server = 'https://localhost:5000'").tried("r"),
        ["https://localhost:5000/v2/"]
    );
}

#[test]
fn certificates_are_found_from_the_directory_of_the_file() {
    let at = |configuration: &Configuration, name: &str| configuration.path("containerd/r").join(name);
    let one = Configuration::of("r", "ca = 'ca.pem'\nclient = 'both.pem'");
    assert_eq!(
        one.hosts("r")[0].tls,
        Tls {
            authorities: vec![at(&one, "ca.pem")],
            identities: vec![(at(&one, "both.pem"), None)],
            skip_verify: false,
        }
    );
    let many = Configuration::of("r", "ca = ['a', '/b']\nclient = ['c', '/d']\nskip_verify = false");
    assert_eq!(
        many.hosts("r")[0].tls,
        Tls {
            authorities: vec![at(&many, "a"), "/b".into()],
            identities: vec![(at(&many, "c"), None), ("/d".into(), None)],
            skip_verify: false,
        }
    );
    let pairs = Configuration::of("r", "client = [['c', 'k'], ['/d', '']]");
    assert_eq!(
        pairs.hosts("r")[0].tls.identities,
        [(at(&pairs, "c"), Some(at(&pairs, "k"))), ("/d".into(), None)]
    );
}

#[test]
fn headers_are_sent_but_never_shown() {
    let text = "[header]\nX-Token = 'geheim'\n[host.'m'.header]\nx-many = ['geheim', 'b']\n";
    let hosts = Configuration::of("r", text).hosts("r");
    let pairs = |host: &Host| -> Vec<_> {
        host.headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect()
    };
    assert_eq!(pairs(&hosts[0]), [("x-many".into(), "geheim".into()), ("x-many".into(), "b".into())]);
    assert_eq!(pairs(&hosts[1]), [("x-token".into(), "geheim".into())]);
    assert!(!format!("{hosts:?}").contains("geheim"));
}

#[test]
fn a_directory_without_a_file_holds_certificates() {
    let mut configuration = Configuration::new();
    for name in ["b.crt", "a.crt", "c.cert", "c.key", "alone.cert", "other.key", "readme", "d.crt/x"] {
        configuration = configuration.with(&format!("containerd/r/{name}"), "");
    }
    let at = |name: &str| configuration.path("containerd/r").join(name);
    let hosts = configuration.hosts("r");
    assert_eq!(hosts[0].tls.authorities, [at("a.crt"), at("b.crt")]);
    assert_eq!(hosts[0].tls.identities, [(at("alone.cert"), None), (at("c.cert"), Some(at("c.key")))]);
}

#[test]
fn certificates_of_docker_are_for_hosts_without_others() {
    let configuration =
        Configuration::of("r:5000", "[host.'https://m:8443']\n[host.'https://own']\nca = 'x'")
            .with("docker/r:5000/ca.crt", "")
            .with("docker/r:5000/me.cert", "")
            .with("docker/r:5000/me.key", "")
            .with("docker/m:8443/ca.crt", "")
            .with("docker/own/ca.crt", "")
            .with("docker/r/ca.crt", "");
    let at = |name: &str| configuration.path("docker").join(name);
    let hosts = configuration.hosts("r:5000");
    assert_eq!(hosts[0].tls.authorities, [at("m:8443/ca.crt")]);
    assert_eq!(hosts[1].tls.authorities, [configuration.path("containerd/r:5000/x")]);
    assert_eq!(hosts[2].tls.authorities, [at("r:5000/ca.crt")]);
    assert_eq!(hosts[2].tls.identities, [(at("r:5000/me.cert"), Some(at("r:5000/me.key")))]);
    assert_eq!(configuration.hosts("other")[0].tls, Tls::default());
}

#[test]
fn half_a_pair_of_docker_is_an_error() {
    for (there, missing) in [("me.cert", "me.key"), ("me.key", "me.cert")] {
        let configuration = Configuration::new().with(&format!("docker/r/{there}"), "");
        let path = configuration.path("docker/r").join(there);
        assert!(configuration.refused("r").starts_with(&format!("{} needs {missing}", path.display())));
    }
}

#[test]
fn what_is_wrong_in_a_file_is_named_with_its_place() {
    for (text, line, reason) in [
        ("server = 'a'\nserver = 'b'", 2, "duplicate"),
        ("\nserver = geheim", 2, ""),
        ("server = 1", 1, "`server` must be a string"),
        ("host = 'a'", 1, "`host` must be tables"),
        ("[host]\na = 1", 2, "a host must be a table"),
        ("[host.'a']\ncapabilities = 'pull'", 2, "must be an array"),
        ("[host.'a']\ncapabilities = [\n'pull',\n'shove']", 4, "capability \"shove\""),
        ("ca = 1", 1, "`ca` must be a string or an array of strings"),
        ("ca = ['a', 1]", 1, "`ca` must be"),
        ("client = [['a', 'b', 'c']]", 1, "`client` must be"),
        ("client = [1]", 1, "`client` must be"),
        ("client = [[]]", 1, "`client` must be"),
        ("skip_verify = 'no'", 1, "`skip_verify` must be true or false"),
        ("header = []", 1, "`header` must be a table"),
        ("[header]\n'a b' = 'x'", 2, "\"a b\" is not the name of a header"),
        ("[header]\na = \"geheim\\n\"", 2, "the value of header a has"),
        ("[header]\na = [1]", 2, "`header` must be"),
        ("\n[host.'ftp://a']", 2, "the scheme \"ftp\""),
        ("[host.'https://user:geheim@a']", 1, "a URL with a user"),
        ("[host.'https://a/?geheim']", 1, "a URL with a query"),
        ("[host.'https://']", 1, "not a URL"),
        ("[host.'https:///a']", 1, "not a URL"),
        ("[host.'a b']", 1, "not a URL"),
        ("[host.'']", 1, "not a URL"),
    ] {
        let configuration = Configuration::of("r", text);
        let error = configuration.refused("r");
        let place = format!("{}:{line}: ", configuration.path("containerd/r/hosts.toml").display());
        assert!(error.starts_with(&place) && error.contains(reason), "{text:?}: {error}");
        assert!(!error.contains("geheim"), "{error}");
    }
}

#[test]
fn unknown_fields_are_ignored() {
    let text = "dial_timeout = '1s'\nunknown = 1\n[host.'m']\nnested = { a = 1 }\n[other]\n";
    assert_eq!(Configuration::of("r", text).tried("r"), ["https://m/v2/", "https://r/v2/"]);
}

#[test]
fn files_that_are_none_are_errors() {
    let huge = Configuration::of("r", &" ".repeat(2 << 20));
    assert!(huge.refused("r").contains("hosts.toml: larger than"));
    let bytes = Configuration::new();
    let directory = bytes.path("containerd/r");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("hosts.toml"), b"server = 'a'\n# \xff").unwrap();
    assert!(bytes.refused("r").ends_with("hosts.toml:2: not UTF-8"));
    fs::remove_file(directory.join("hosts.toml")).unwrap();
    fs::create_dir(directory.join("hosts.toml")).unwrap();
    assert!(bytes.refused("r").ends_with("hosts.toml: not a regular file"));
}

#[test]
fn names_do_not_lead_out_of_the_directories() {
    let configuration = Configuration::new();
    for domain in [
        "", ".", "..", "../etc", "a/b", "/etc", "a\\b", "a@b", "a?b", "a#b", "a b", "a\nb", "a\0b", "a%2fb",
        "a:b", "a:99999",
    ] {
        assert!(matches!(configuration.options.hosts(domain), Err(HostsError::Domain { .. })), "{domain:?}");
    }
}

#[test]
fn sockets_and_pipes_are_not_waited_for() {
    let configuration = Configuration::new();
    let directory = configuration.path("containerd/r");
    fs::create_dir_all(&directory).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(directory.join("hosts.toml")).unwrap();
    assert!(configuration.refused("r").ends_with("hosts.toml: not a regular file"));
}

proptest! {
    /// No text makes it panic, and what comes out always has a base that ends in a slash.
    #[test]
    fn any_file_is_read_or_refused(
        text in "(\\[host\\.|\"|'|https://|[a-z:/=\\[\\]\n .é]|ca|client|header|server|true){0,40}",
        domain in "[a-z0-9.:\\[\\]_-]{0,12}",
    ) {
        let configuration = Configuration::of("_default", &text);
        if let Ok(hosts) = configuration.options.hosts(&domain) {
            prop_assert!(!hosts.is_empty());
            for host in hosts {
                prop_assert!(host.base.as_str().ends_with('/'));
                prop_assert!(matches!(host.base.scheme(), "http" | "https"));
            }
        }
    }
}
