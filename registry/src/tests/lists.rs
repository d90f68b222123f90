use layerstore_oci::Algorithm;

use super::*;
use crate::Error;

#[test]
fn tags_are_read_page_by_page_and_from_the_registry_alone() {
    let foreign = Server::always(answer("200 OK", "", br#"{"tags": ["theirs"]}"#));
    let last = format!("Link: <{}>; rel=\"next\"\r\n", foreign.url("/more"));
    let server = Server::new(move |request, _| {
        if request.contains("last=b") {
            answer("200 OK", &last, br#"{"name": "a/b", "tags": ["b", "c"]}"#)
        } else {
            let link = "Link: </v2/a/b/tags/list?n=2&last=b>; rel=\"next\"\r\n";
            answer("200 OK", link, br#"{"name": "a/b", "tags": ["a", "b"]}"#)
        }
    });
    let client = client(options());
    assert_eq!(repository(&client, &server.address).tags().unwrap(), ["a", "b", "c"]);
    assert_eq!((server.asked(), foreign.asked()), (2, 0));
    let none = Server::always(answer("200 OK", "", br#"{"name": "a/b", "tags": null}"#));
    assert!(repository(&client, &none.address).tags().unwrap().is_empty());
}

#[test]
fn a_list_without_end_is_given_up() {
    let server = Server::new(|_, number| {
        let link = format!("Link: </v2/a/b/tags/list?page={number}>; rel=\"next\"\r\n");
        answer("200 OK", &link, br#"{"tags": ["a"]}"#)
    });
    let error = repository(&client(options()), &server.address).tags().unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

#[test]
fn without_the_referrers_api_its_tag_is_read() {
    let wanted = digest(b"manifest");
    let tag = format!("sha256-{}", wanted.hex());
    let index = format!(
        r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "{0}", "size": 1, "artifactType": "a/sig"}},
        {{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": "{0}", "size": 1, "artifactType": "a/sbom"}}]}}"#,
        digest(b"signature")
    );
    let server = Server::new(move |request, _| {
        if request.contains(&format!("/manifests/{tag} ")) {
            answer("200 OK", "", index.as_bytes())
        } else {
            answer(
                "404 Not Found",
                "Docker-Distribution-Api-Version: registry/2.0\r\n",
                b"404 page not found",
            )
        }
    });
    let repository = repository(&client(options()), &server.address);
    assert_eq!(repository.referrers(&wanted, None).unwrap().len(), 2);
    let signatures = repository.referrers(&wanted, Some("a/sig")).unwrap();
    assert_eq!(signatures.len(), 1);
    assert!(repository.referrers(&digest(b"other"), None).unwrap().is_empty());
}

#[test]
fn a_list_of_more_bytes_than_any_has_is_given_up() {
    let mut page = br#"{"tags": ["a"]}"#.to_vec();
    page.resize(4 << 20, b' ');
    let server = Server::new(move |_, number| {
        let link = format!("Link: </v2/a/b/tags/list?page={number}>; rel=\"next\"\r\n");
        answer("200 OK", &link, &page)
    });
    let error = repository(&client(options()), &server.address).tags().unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    assert_eq!(server.asked(), 17);
}

#[test]
fn the_tag_of_what_refers_to_a_long_digest_is_cut_as_specified() {
    let server =
        Server::always(answer("404 Not Found", "Docker-Distribution-Api-Version: registry/2.0\r\n", b""));
    let long = Digest::from_hex(Algorithm::Sha512, &"0123456789abcdef".repeat(8)).unwrap();
    assert!(repository(&client(options()), &server.address).referrers(&long, None).unwrap().is_empty());
    let asked = format!("GET /v2/a/b/manifests/sha512-{} ", "0123456789abcdef".repeat(4));
    assert!(server.requests().iter().any(|request| request.starts_with(&asked)), "{:?}", server.requests());
}

#[test]
fn a_search_asks_the_registry_and_bounds_what_it_gives() {
    let server = Server::always(answer(
        "200 OK",
        "",
        br#"{"results": [{"name": "a", "description": null, "star_count": 2}, {"name": "b"}]}"#,
    ));
    let found = client(options()).search(&server.address, "a b", 1, &Unwatched).unwrap();
    assert_eq!(found.iter().map(|found| (&*found.name, found.star_count)).collect::<Vec<_>>(), [("a", 2)]);
    assert!(server.requests()[0].starts_with("GET /v1/search?q=a+b&n=1 "), "{}", server.requests()[0]);
    let none = Server::always(answer("200 OK", "", br#"{"results": null}"#));
    assert!(client(options()).search(&none.address, "a", 0, &Unwatched).unwrap().is_empty());
}
