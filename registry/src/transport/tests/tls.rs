use super::*;

/// What a server answers to a client with `tls`.
fn get(transport: &Transport, tls: &Tls, url: &str) -> Result<String, reqwest::Error> {
    transport.client(tls, true).unwrap().get(url).send()?.text()
}

#[test]
fn an_authority_is_trusted_only_where_it_is_given() {
    let authority = Authority::new();
    let server = Server::tls(authority.server("127.0.0.1"));
    let transport = transport();
    assert_eq!(get(&transport, &authority.trusted(), &server.url("https")).unwrap(), "hidden");
    assert!(!transport.system.are_loaded(), "the system's authorities are not needed for this");
    let error = get(&transport, &Tls::default(), &server.url("https")).unwrap_err();
    assert!(error.is_connect(), "{error:?}");
    assert!(transport.system.are_loaded());
    let error = get(&transport, &Authority::new().trusted(), &server.url("https")).unwrap_err();
    assert!(chain(&error).contains("UnknownIssuer"), "{}", chain(&error));
    assert!(!is_other_scheme(&error));
}

#[test]
fn the_authorities_of_the_system_count_beside_those_given() {
    let authority = Authority::new();
    let server = Server::tls(authority.server("127.0.0.1"));
    let system = Transport { system: SystemRoots::of(authority.roots.clone()), ..transport() };
    for tls in [Tls::default(), Authority::new().trusted()] {
        assert_eq!(get(&system, &tls, &server.url("https")).unwrap(), "hidden");
    }
    let none = Transport { system: SystemRoots::of(RootCertStore::empty()), ..transport() };
    let error = get(&none, &Tls::default(), &server.url("https")).unwrap_err();
    assert!(chain(&error).contains("install ca-certificates"), "{}", chain(&error));
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    let authority = Authority::new();
    let server = Server::tls(authority.server("registry.example"));
    let error = get(&transport(), &authority.trusted(), &server.url("https")).unwrap_err();
    assert!(chain(&error).contains("not valid for name"), "{}", chain(&error));
}

#[test]
fn nothing_is_checked_where_that_is_said() {
    let server = Server::tls(Authority::new().server("registry.example"));
    let transport = transport();
    let tls = Tls { skip_verify: true, ..Tls::default() };
    assert_eq!(get(&transport, &tls, &server.url("https")).unwrap(), "hidden");
    assert!(!transport.system.are_loaded());
}

/// A certificate that is its own authority, as `openssl req -x509` makes it.
fn own_authority(name: &str, until: i32) -> (ServerConfig, String) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (server_config(&certificate, &key, None), certificate.pem())
}

#[test]
fn a_certificate_that_is_its_own_authority_is_trusted_where_it_is_given() {
    let authority = Authority::new();
    for (name, until, refusal) in [
        ("127.0.0.1", 4096, None),
        ("127.0.0.1", 2001, Some("expired")),
        ("registry.example", 4096, Some("not valid for name")),
    ] {
        let (config, pem) = own_authority(name, until);
        let server = Server::tls(config);
        let given = Tls { authorities: vec![authority.write("own.crt", &pem)], ..Tls::default() };
        match (get(&transport(), &given, &server.url("https")), refusal) {
            (Ok(body), None) => assert_eq!(body, "hidden"),
            (Err(error), Some(refusal)) => assert!(chain(&error).contains(refusal), "{}", chain(&error)),
            (result, refusal) => panic!("{result:?} instead of {refusal:?}"),
        }
        get(&transport(), &authority.trusted(), &server.url("https")).unwrap_err();
    }
}

#[test]
fn an_identity_is_shown_only_where_that_is_wanted() {
    let authority = Authority::new();
    let server = Server::tls(authority.server("127.0.0.1"));
    let (certificate, key) = authority.client("me");
    let both = fs::read_to_string(&certificate).unwrap() + &fs::read_to_string(&key).unwrap();
    let both = authority.write("both.pem", &both);
    for identity in [(certificate, Some(key)), (both, None)] {
        let tls = Tls { identities: vec![identity], ..authority.trusted() };
        let transport = transport();
        let ask = |present| {
            transport.client(&tls, present).unwrap().get(server.url("https")).send().unwrap().text().unwrap()
        };
        assert_eq!((ask(true), ask(false)), ("shown".to_owned(), "hidden".to_owned()));
        assert_eq!(transport.clients.lock().unwrap().len(), 2);
        transport.client(&authority.trusted(), true).unwrap();
        assert_eq!(transport.clients.lock().unwrap().len(), 2, "the same as the one that shows nothing");
    }
}

#[test]
fn files_that_do_not_serve_are_named() {
    let authority = Authority::new();
    let (certificate, key) = authority.client("me");
    let (other, _) = authority.client("other");
    let junk = authority.write("junk", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let empty = authority.write("empty", "no PEM at all");
    let hollow = authority.write("hollow", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let locked = authority.write("locked", locked);
    let missing = authority.folder.path().join("missing");
    let ca = |path: &PathBuf| Tls { authorities: vec![path.clone()], ..Tls::default() };
    let identity = |certificate: &PathBuf, key: Option<&PathBuf>| Tls {
        identities: vec![(certificate.clone(), key.cloned())],
        ..Tls::default()
    };
    for (tls, path, reason) in [
        (ca(&missing), &missing, "cannot read"),
        (ca(&empty), &empty, "no certificate in PEM form"),
        (ca(&junk), &junk, "not in PEM form"),
        (ca(&hollow), &hollow, "no certificate in it can be used"),
        (ca(&key), &key, "no certificate in PEM form"),
        (identity(&missing, Some(&key)), &missing, "cannot read"),
        (identity(&certificate, Some(&missing)), &missing, "cannot read"),
        (identity(&certificate, None), &certificate, "no private key in PEM form"),
        (identity(&certificate, Some(&locked)), &locked, "encrypted: store it without a passphrase"),
        (identity(&other, Some(&key)), &key, "cannot be used for"),
    ] {
        let error = transport().client(&tls, true).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains(reason), "{error}");
    }
}
