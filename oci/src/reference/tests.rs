use proptest::prelude::*;

use super::*;

const HEX: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff";

fn parse(text: &str) -> Reference {
    text.parse().unwrap_or_else(|error| panic!("{text:?} was refused: {error}"))
}

/// Input, domain, path, tag, familiar form; after `normalize_test.go` of `distribution/reference`.
#[test]
fn names_are_normalised_as_docker_does() {
    let cases = [
        ("nginx", "docker.io", "library/nginx", Some("latest"), "nginx:latest"),
        ("nginx:1.27-alpine", "docker.io", "library/nginx", Some("1.27-alpine"), "nginx:1.27-alpine"),
        ("library/nginx", "docker.io", "library/nginx", Some("latest"), "nginx:latest"),
        ("docker.io/nginx", "docker.io", "library/nginx", Some("latest"), "nginx:latest"),
        ("index.docker.io/nginx", "docker.io", "library/nginx", Some("latest"), "nginx:latest"),
        ("index.docker.io/a/b", "docker.io", "a/b", Some("latest"), "a/b:latest"),
        ("user/app", "docker.io", "user/app", Some("latest"), "user/app:latest"),
        ("library/a/b", "docker.io", "library/a/b", Some("latest"), "library/a/b:latest"),
        ("docker/docker", "docker.io", "docker/docker", Some("latest"), "docker/docker:latest"),
        ("localhost", "docker.io", "library/localhost", Some("latest"), "localhost:latest"),
        ("localhost:5000", "docker.io", "library/localhost", Some("5000"), "localhost:5000"),
        ("localhost/app", "localhost", "app", Some("latest"), "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000", "app", Some("1"), "localhost:5000/app:1"),
        ("host:5000/a/b:t", "host:5000", "a/b", Some("t"), "host:5000/a/b:t"),
        ("127.0.0.1:5000/docker", "127.0.0.1:5000", "docker", Some("latest"), "127.0.0.1:5000/docker:latest"),
        ("[::1]:5000/repo", "[::1]:5000", "repo", Some("latest"), "[::1]:5000/repo:latest"),
        ("[2001:db8::1]/repo:t", "[2001:db8::1]", "repo", Some("t"), "[2001:db8::1]/repo:t"),
        (
            "example.com/library/app",
            "example.com",
            "library/app",
            Some("latest"),
            "example.com/library/app:latest",
        ),
        ("Registry/app", "Registry", "app", Some("latest"), "Registry/app:latest"),
        (
            "xn--n3h.com/myimage:xn--n3h.com",
            "xn--n3h.com",
            "myimage",
            Some("xn--n3h.com"),
            "xn--n3h.com/myimage:xn--n3h.com",
        ),
        ("a__b/c---d.e_f", "docker.io", "a__b/c---d.e_f", Some("latest"), "a__b/c---d.e_f:latest"),
        ("xn--7o8h.com/a:Tag_1.x-y", "xn--7o8h.com", "a", Some("Tag_1.x-y"), "xn--7o8h.com/a:Tag_1.x-y"),
        ("docker.io/my.org/app", "docker.io", "my.org/app", Some("latest"), "docker.io/my.org/app:latest"),
    ];
    for (text, domain, path, tag, familiar) in cases {
        let reference = parse(text);
        assert_eq!(
            (reference.domain(), reference.path(), reference.tag(), reference.familiar().as_str()),
            (domain, path, tag, familiar),
            "{text}"
        );
        assert_eq!(reference.repository(), format!("{domain}/{path}"));
        assert_eq!(parse(&reference.to_string()), reference, "{text}");
        assert_eq!(parse(familiar), reference, "{text}");
    }
}

#[test]
fn a_digest_needs_no_tag_and_may_have_one() {
    let bare = parse(&format!("nginx@sha256:{HEX}"));
    assert_eq!((bare.tag(), bare.digest().unwrap().hex().as_str()), (None, HEX));
    assert_eq!(bare.familiar(), format!("nginx@sha256:{HEX}"));
    assert_eq!(bare.without_digest(), parse("nginx"));

    let both = parse(&format!("host:5000/a/b:tag@sha256:{HEX}"));
    assert_eq!((both.domain(), both.path(), both.tag()), ("host:5000", "a/b", Some("tag")));
    assert_eq!(both.to_string(), format!("host:5000/a/b:tag@sha256:{HEX}"));
    assert_eq!(both.without_digest(), parse("host:5000/a/b:tag"));
    assert_eq!(both.without_digest().with_digest(both.digest().unwrap().clone()), both);

    // Docker allows 64 hexadecimal digits as a name when something follows.
    assert_eq!(parse(&format!("{HEX}:tag")).path(), format!("library/{HEX}"));
}

#[test]
fn tags_can_be_set() {
    let reference = parse("nginx").with_tag("1.27").unwrap();
    assert_eq!(reference.familiar(), "nginx:1.27");
    assert!(matches!(reference.with_tag("a/b"), Err(ReferenceError::Tag { .. })));
}

#[test]
fn errors_name_the_part_that_is_wrong() {
    let cases = [
        ("", "empty"),
        (HEX, "image ID"),
        ("Nginx", "lower-case (did you mean `nginx`?)"),
        ("docker.io/library/Nginx:Tag", "did you mean `docker.io/library/nginx:Tag`?"),
        ("a//b", "a part between two slashes is empty"),
        ("a/", "a part between two slashes is empty"),
        ("/a", "a part between two slashes is empty"),
        ("-a", "starts or ends with a separator"),
        ("a/b-", "starts or ends with a separator"),
        ("a._b", "separators may not be joined"),
        ("a..b", "separators may not be joined"),
        ("a___b", "separators may not be joined"),
        ("a b", "only lower-case letters"),
        ("ümlaut", "only lower-case letters"),
        ("../etc/passwd", "a part between two dots is empty"),
        ("a/../b", "starts or ends with a separator"),
        ("https://example.com/a", "the port is not a number"),
        ("host:50x0/a", "the port is not a number"),
        ("host:/a", "the port is not a number"),
        ("-host.com/a", "starts or ends with a hyphen"),
        ("ho_st.com/a", "only letters, digits, hyphens and dots"),
        ("[::1/a", "not closed"),
        ("[::g]/a", "hexadecimal digits and colons"),
        ("[fe80::1%eth0]:5000/a", "hexadecimal digits and colons"),
        ("[::1]5000/a", "only a port"),
        ("a:", "at least one character"),
        ("a:-b", "the first character"),
        ("a:b:c", "only letters, digits, `_`"),
        ("a@sha256:short", "after `@` is not a digest"),
        ("a@", "after `@` is not a digest"),
        ("a@b/c", "after `@` is not a digest"),
        ("@sha256:0", "a part between two slashes is empty"),
    ];
    for (text, message) in cases {
        let error = text.parse::<Reference>().expect_err(text);
        assert!(error.to_string().contains(message), "{text:?}: {error}");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn lengths_are_limited() {
    parse(&format!("x.io/{}a", "a/".repeat(127)));
    let error = format!("x.io/{}a", "a/".repeat(128)).parse::<Reference>().unwrap_err();
    assert_eq!(error, ReferenceError::TooLong { length: 257 });
    // The default prefix counts, or the canonical form would not parse.
    let error = "a".repeat(248).parse::<Reference>().unwrap_err();
    assert_eq!(error, ReferenceError::TooLong { length: 256 });
    parse(&format!("a:{}", "t".repeat(128)));
    assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
}

#[test]
fn serde_uses_the_canonical_text() {
    let json = serde_json::to_string(&parse("nginx")).unwrap();
    assert_eq!(json, "\"docker.io/library/nginx:latest\"");
    assert_eq!(serde_json::from_str::<Reference>("\"nginx\"").unwrap(), parse("nginx"));
    assert!(serde_json::from_str::<Reference>("\"Nginx\"").is_err());
}

const DOMAIN: &str = r"(localhost|[a-zA-Z0-9]{1,5}(-{1,2}[a-zA-Z0-9]{1,3})?(\.[a-z0-9]{1,4}){1,2}|\[[0-9a-f]{0,4}::[0-9a-f:]{0,5}\])(:[0-9]{1,5})?/";
const PATH: &str = r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,6}){0,3}";

proptest! {
    #[test]
    fn every_reference_of_the_grammar_round_trips(
        domain in proptest::option::of(DOMAIN),
        path in PATH,
        tag in proptest::option::of(r"[\w&&[[:ascii:]]][a-zA-Z0-9_.-]{0,20}"),
        hex in proptest::option::of("[0-9a-f]{64}"),
    ) {
        // A first component such as `a.b` is a domain of its own.
        let implied = if is_domain(path.split('/').next().unwrap()) { "docker.io/" } else { "" };
        let mut text = domain.unwrap_or_else(|| implied.to_owned()) + &path;
        if let Some(tag) = &tag { text = text + ":" + tag; }
        if let Some(hex) = &hex { text = text + "@sha256:" + hex; }
        let reference: Reference = text.parse().map_err(|e| TestCaseError::fail(format!("{text}: {e}")))?;
        prop_assert!(reference.to_string().contains('/'));
        prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
        prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
        prop_assert_eq!(reference.digest().is_some(), hex.is_some());
        prop_assert!(reference.tag().is_some() || reference.digest().is_some());
    }

    #[test]
    fn whatever_parses_round_trips(text in r"[a-zA-Z0-9._:@/\[\]-]{0,40}|\PC{0,20}") {
        if let Ok(reference) = text.parse::<Reference>() {
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
        }
    }
}
