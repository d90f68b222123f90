//! Uploads that break.

use std::fs;

use layerstore_testkit::fault_proxy::{Fault, Match};
use layerstore_testkit::hex_of;
use layerstore_testkit::image::Layout;
use layerstore_testkit::registry::RegistryOptions;
use layerstore_testkit::sandbox::Run;
use layerstore_testkit::token_server::{TokenOptions, TokenServer};

use super::{RETRY, SIZE, Setup, assert_says};

const HALF: u64 = SIZE as u64 / 2;

impl Setup {
    /// The same with the image in the store, from an archive, so that no other repository is known to have it.
    fn loaded(options: RegistryOptions) -> Option<Self> {
        let setup = Self::empty(options)?;
        setup.store.load_bytes(&Layout::of("localhost/a:1", &setup.image).archive());
        Some(setup)
    }

    fn push(&self, arguments: &[&str]) -> Run {
        let to = format!("{}/b:1", self.proxy.host());
        let arguments = [arguments, &["localhost/a:1", &to]].concat();
        Run::of(&mut self.command("push", RETRY, &arguments), &[])
    }

    #[track_caller]
    fn assert_pushed(&self) {
        let manifest = self.registry.manifest("b", "1").expect("the registry has the image");
        assert_eq!(manifest, self.image.manifest().to_string().into_bytes());
        for number in 0..2 {
            let (digest, _) = self.layer(number);
            assert!(self.registry.has_blob("b", &digest));
            assert!(self.registry.blob(&digest).unwrap() == self.image.layers[number].blob);
        }
    }
}

/// A push in which this goes wrong succeeds. One layer at a time, so that it is known which.
#[track_caller]
fn survives(requests: Match, fault: Fault) -> Option<Setup> {
    let setup = Setup::loaded(RegistryOptions::new())?;
    setup.proxy.on(requests, fault);
    setup.push(&["--parallel", "1"]).success();
    setup.assert_pushed();
    Some(setup)
}

#[test]
fn privileged_an_upload_that_is_cut_is_made_again() {
    let Some(setup) =
        survives(Match::new("PUT", "/blobs/uploads/").first(1), Fault::CutUpload { after: HALF })
    else {
        return;
    };
    // A config, two layers, and one of them twice.
    assert_eq!(setup.proxy.traffic().count("PUT", "/blobs/uploads/"), 4);
}

#[test]
fn privileged_an_upload_in_chunks_goes_on_or_begins_anew() {
    let Some(setup) = Setup::loaded(RegistryOptions::new()) else { return };
    setup.proxy.on(Match::new("PATCH", "").nth(3), Fault::CutUpload { after: 1000 });
    setup.push(&["--parallel", "1", "--chunk-size", "64K"]).success();
    setup.assert_pushed();
}

#[test]
fn privileged_an_error_of_the_server_while_pushing_may_pass() {
    survives(Match::new("PUT", "/blobs/uploads/").first(1), Fault::status(500));
    survives(Match::new("POST", "/blobs/uploads/").first(1), Fault::status(503));
    survives(Match::new("PUT", "/manifests/").first(1), Fault::status(500));
    survives(Match::new("HEAD", "").first(1), Fault::status(502));
}

#[test]
fn privileged_an_answer_that_is_lost_is_not_the_end() {
    survives(Match::new("PUT", "/blobs/uploads/").first(1), Fault::LoseAnswer);
    survives(Match::new("POST", "/blobs/uploads/").first(1), Fault::LoseAnswer);
    survives(Match::new("PUT", "/manifests/").first(1), Fault::LoseAnswer);
    survives(Match::new("PUT", "/blobs/uploads/").first(1), Fault::HangUp);
}

#[test]
fn privileged_a_push_that_fails_each_time_leaves_no_tag() {
    let Some(setup) = Setup::loaded(RegistryOptions::new()) else { return };
    setup.proxy.on(Match::new("PUT", "/blobs/uploads/"), Fault::status(500));
    assert_says(&setup.push(&[]).failure(8), "500");
    assert!(setup.registry.tags("b").is_empty());
    setup.proxy.heal();
    setup.push(&[]).success();
    setup.assert_pushed();
}

#[test]
fn privileged_a_token_that_is_refused_in_the_middle_of_a_push_is_replaced() {
    let tokens = TokenServer::start(TokenOptions::new().anonymous(&[("*", "pull,push")]));
    let Some(setup) = Setup::loaded(RegistryOptions::new().tokens(&tokens)) else { return };
    let challenge = format!(
        r#"Bearer realm="{}",service="{}",scope="repository:b:pull,push",error="invalid_token""#,
        tokens.realm(),
        tokens.service()
    );
    let refused = || Fault::status_with(401, "WWW-Authenticate", &challenge);
    setup.proxy.on(Match::new("PUT", "/blobs/uploads/").first(1), refused());
    setup.proxy.on(Match::new("PUT", "/manifests/").first(1), refused());
    setup.push(&["--parallel", "1"]).success();
    setup.assert_pushed();
    assert_eq!(tokens.requests().len(), 3, "{:?}", tokens.requests());
}

#[test]
fn privileged_a_damaged_layer_is_not_pushed() {
    for shorter in [false, true] {
        let Some(setup) = Setup::loaded(RegistryOptions::new()) else { return };
        let (digest, _) = setup.layer(0);
        let path = setup.store.root().join("blobs/sha256").join(hex_of(&digest));
        let mut bytes = fs::read(&path).unwrap();
        bytes[SIZE / 2] ^= 1;
        bytes.truncate(if shorter { SIZE - 1 } else { bytes.len() });
        fs::write(&path, bytes).unwrap();
        assert_says(&setup.push(&[]).failure(5), &digest);
        assert!(setup.registry.tags("b").is_empty() && !setup.registry.has_blob("b", &digest));
    }
}
