use proptest::prelude::*;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

#[test]
fn plain_http_loads_no_authorities() {
    let server = Server::plain(OK);
    let transport = transport();
    let client = transport.client(&Tls::default(), true).unwrap();
    assert_eq!(client.get(server.url("http")).send().unwrap().text().unwrap(), "ok");
    assert!(!transport.system.are_loaded());
    let request = server.request();
    assert!(
        request.contains(concat!("user-agent: layerstore/", env!("CARGO_PKG_VERSION"), "\r\n")),
        "{request}"
    );
    assert!(!request.contains("accept-encoding"), "{request}");
}

#[test]
fn redirects_are_left_to_the_caller() {
    let server =
        Server::plain("HTTP/1.1 307 Temporary Redirect\r\nlocation: /else\r\ncontent-length: 0\r\n\r\n");
    let answer = transport().client(&Tls::default(), true).unwrap().get(server.url("http")).send().unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["location"]), (307, &"/else".parse().unwrap()));
}

#[test]
fn a_body_that_stands_still_is_given_up() {
    let (keep, kept) = mpsc::channel();
    let server = Server::start(move |mut connection, _| {
        header(&mut connection)?;
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no")?;
        drop(keep.send(connection));
        Ok(())
    });
    let timeouts = Timeouts { stall: Duration::from_millis(200), ..Timeouts::default() };
    let transport = Transport::new(&Proxies::default(), timeouts).unwrap();
    let mut answer = transport.client(&Tls::default(), true).unwrap().get(server.url("http")).send().unwrap();
    let error = answer.read_to_end(&mut Vec::new()).unwrap_err();
    let inner = error.get_ref().unwrap().downcast_ref::<reqwest::Error>().unwrap();
    assert!(inner.is_timeout(), "{inner:?}");
    drop(kept);
}

#[test]
fn an_upload_has_time_by_its_length() {
    let transport = transport();
    assert_eq!(transport.upload_timeout(0), Duration::from_mins(1));
    assert_eq!(transport.upload_timeout(8 << 20), Duration::from_secs(60 + 1024));
    assert!(transport.upload_timeout(u64::MAX) > Duration::from_hours(1));
}

#[test]
fn a_server_of_the_other_scheme_is_told_from_one_that_is_not_there() {
    let skip = Tls { skip_verify: true, ..Tls::default() };
    let failed = |url: &str| {
        let client = transport().client(&skip, true).unwrap();
        is_other_scheme(&client.get(url).send().unwrap_err())
    };
    let plain = Server::start(|mut connection, _| {
        let _ = connection.read(&mut [0; 4096])?;
        connection.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
    });
    assert!(failed(&plain.url("https")));
    assert!(failed(&Server::start(|_, _| Ok(())).url("https")), "closed within the handshake");
    assert!(failed(&Server::tls(Authority::new().server("127.0.0.1")).url("http")));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(!failed(&format!("https://{nobody}/")));
    assert!(!failed(&format!("http://{nobody}/")));
}

/// A client whose requests, of either scheme, go through `proxy`.
fn proxied(proxy: &Server, no_proxy: &str) -> Transport {
    let proxies = Proxies {
        all: Some(format!("http://user:ge%40heim@{}", proxy.address)),
        no_proxy: Some(no_proxy.to_owned()),
        ..Proxies::default()
    };
    Transport::new(&proxies, Timeouts::default()).unwrap()
}

/// `user:ge@heim`
const AUTHORIZATION: &str = "proxy-authorization: Basic dXNlcjpnZUBoZWlt\r\n";

#[test]
fn plain_requests_go_to_the_proxy_with_its_password() {
    let proxy = Server::plain(OK);
    let transport = proxied(&proxy, "");
    let client = transport.client(&Tls::default(), true).unwrap();
    assert_eq!(client.get("http://registry.invalid/v2/").send().unwrap().text().unwrap(), "ok");
    let request = proxy.request();
    assert!(request.starts_with("GET http://registry.invalid/v2/ HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(AUTHORIZATION), "{request}");
}

#[test]
fn this_machine_is_reached_without_the_proxy() {
    let proxy = Server::plain("");
    let server = Server::plain(OK);
    let client = proxied(&proxy, "").client(&Tls::default(), true).unwrap();
    assert_eq!(client.get(server.url("http")).send().unwrap().text().unwrap(), "ok");
    assert!(!server.request().contains("proxy-authorization"));
    assert!(proxy.requests.try_recv().is_err());
}

#[test]
fn exceptions_are_not_sent_to_the_proxy() {
    let proxy = Server::plain(OK);
    let client = proxied(&proxy, ".invalid").client(&Tls::default(), true).unwrap();
    // The name does not exist, so going there directly fails.
    assert!(client.get("http://registry.invalid/v2/").send().unwrap_err().is_connect());
    assert!(proxy.requests.try_recv().is_err());
}

#[test]
fn tls_goes_through_a_tunnel() {
    let authority = Authority::new();
    let config = Arc::new(authority.server("registry.invalid"));
    let proxy = Server::start(move |mut connection, requests| {
        drop(requests.send(header(&mut connection)?));
        connection.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        drop(requests.send(answer_tls(&config, connection)?));
        Ok(())
    });
    let client = proxied(&proxy, "").client(&authority.trusted(), true).unwrap();
    assert_eq!(client.get("https://registry.invalid/v2/").send().unwrap().text().unwrap(), "hidden");
    let connect = proxy.request();
    assert!(connect.starts_with("CONNECT registry.invalid:443 HTTP/1.1\r\n"), "{connect}");
    assert!(connect.to_ascii_lowercase().contains(&AUTHORIZATION.to_ascii_lowercase()), "{connect}");
    assert!(
        !proxy.request().to_ascii_lowercase().contains("proxy-authorization"),
        "the registry learns no password"
    );
}

#[test]
fn a_proxy_may_itself_speak_tls() {
    let authority = Authority::new();
    let proxy = Server::tls(authority.server("127.0.0.1"));
    let proxies = Proxies { all: Some(format!("https://{}", proxy.address)), ..Proxies::default() };
    let transport = Transport::new(&proxies, Timeouts::default()).unwrap();
    let client = transport.client(&authority.trusted(), true).unwrap();
    assert_eq!(client.get("http://registry.invalid/v2/").send().unwrap().text().unwrap(), "hidden");
    assert!(proxy.request().starts_with("GET http://registry.invalid/v2/ "));
}

#[test]
fn a_socks_proxy_looks_the_name_up() {
    let proxy = Server::start(|mut connection, requests| {
        let mut greeting = [0; 3];
        connection.read_exact(&mut greeting)?;
        connection.write_all(&[5, 0])?;
        let mut request = [0; 7 + "registry.invalid".len()];
        connection.read_exact(&mut request)?;
        connection.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
        drop(requests.send(String::from_utf8_lossy(&request[5..]).into_owned()));
        drop(requests.send(header(&mut connection)?));
        connection.write_all(OK.as_bytes())
    });
    let proxies = Proxies { all: Some(format!("socks5://{}", proxy.address)), ..Proxies::default() };
    let client =
        Transport::new(&proxies, Timeouts::default()).unwrap().client(&Tls::default(), true).unwrap();
    assert_eq!(client.get("http://registry.invalid/v2/").send().unwrap().text().unwrap(), "ok");
    assert_eq!(proxy.request(), "registry.invalid\0\x50");
    assert!(proxy.request().starts_with("GET /v2/ "));
}

#[test]
fn a_proxy_that_refuses_is_an_error_without_its_password() {
    let proxy = Server::plain("HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n");
    let client = proxied(&proxy, "").client(&Tls::default(), true).unwrap();
    let error = client.get("https://registry.invalid/v2/").send().unwrap_err();
    let text = format!("{}{error:?}", chain(&error));
    assert!(text.contains("proxy authorization required"), "{text}");
    assert!(!text.contains("heim") && !text.contains("dXNlcjpn"), "{text}");
}

proptest! {
    /// A proxy that is accepted is one that is used: `reqwest` goes past those that it cannot read.
    #[test]
    fn no_proxy_is_passed_over(user in "[!-~]{0,12}", host in "[a-z.{}%\"'!_-]{1,8}", scheme in "(http|https|socks5)") {
        let user = user.replace(['/', '?', '#', '\\'], "");
        let proxies = Proxies { all: Some(format!("{scheme}://{user}@{host}:9")), ..Proxies::default() };
        if let Ok(Some(rules)) = proxies.rules() {
            let proxy = rules.proxy_for(&"https://registry.invalid".parse().unwrap()).unwrap();
            let authority = proxy.as_str().split('/').nth(2).unwrap().to_owned();
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@[]%".contains(&byte);
            prop_assert!(authority.bytes().all(allowed), "{authority}");
            prop_assert!(!proxy.host_str().unwrap().contains('%'));
        }
    }
}
