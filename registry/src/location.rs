//! Where a registry sends us next: the session of an upload, the next page of a list.

use url::Url;

/// Why there is no address.
pub(crate) const UNREADABLE: &str = "the address in it cannot be read";

/// The address `text` that an answer from `at` gives, for a registry whose API is at `base`.
///
/// Registries behind something that speaks TLS for them often do not know of it, and give addresses with `http`: those
/// on the same host are corrected. From TLS nobody is led to plain HTTP elsewhere, and users and passwords in an address
/// are none of ours.
pub(crate) fn resolve(base: &Url, at: &Url, text: &str) -> Result<Url, &'static str> {
    let mut url = at.join(text).map_err(|_| UNREADABLE)?;
    url.set_fragment(None);
    if !url.username().is_empty() || url.password().is_some() {
        url.set_username("").and_then(|()| url.set_password(None)).map_err(|()| UNREADABLE)?;
    }
    match (base.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(url),
        ("https", "http") if url.host_str() == base.host_str() => {
            url.set_scheme("https").and_then(|()| url.set_port(base.port())).map_err(|()| UNREADABLE)?;
            Ok(url)
        }
        ("https", "http") => Err("plain HTTP after TLS is not accepted"),
        _ => Err("the address in it is neither HTTP nor HTTPS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_in_all_forms() {
        let resolved = |base: &str, text: &str| {
            let base = Url::parse(base).unwrap();
            let at = base.join("a/blobs/uploads/").unwrap();
            resolve(&base, &at, text).map(String::from)
        };
        let tls = "https://r.example:5000/v2/";
        for (text, expected) in [
            ("/v2/a/1?state=x%3D", "https://r.example:5000/v2/a/1?state=x%3D"),
            ("1", "https://r.example:5000/v2/a/blobs/uploads/1"),
            ("?n=1", "https://r.example:5000/v2/a/blobs/uploads/?n=1"),
            ("https://else.example/1", "https://else.example/1"),
            ("//else.example/1", "https://else.example/1"),
            ("https://me:secret@r.example:5000/1#x", "https://r.example:5000/1"),
            ("http://r.example/1", "https://r.example:5000/1"),
            ("http://r.example:5000/1", "https://r.example:5000/1"),
        ] {
            assert_eq!(resolved(tls, text).as_deref(), Ok(expected), "{text}");
        }
        assert!(resolved(tls, "http://else.example/1").is_err());
        assert!(resolved(tls, "file:///etc/passwd").is_err());
        assert!(resolved(tls, "https://").is_err());
        assert_eq!(
            resolved("http://localhost:5000/v2/", "https://localhost:5000/1").as_deref(),
            Ok("https://localhost:5000/1")
        );
    }
}
