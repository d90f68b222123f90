//! A layer on its way is cut, delayed or changed.

use std::time::Duration;

use layerstore_testkit::fault_proxy::Fault;

use super::{HASTY, RETRY, SIZE, Setup, assert_says};

const HALF: u64 = SIZE as u64 / 2;

#[test]
fn privileged_a_cut_layer_goes_on_where_it_was() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Cut { after: HALF });
    setup.pull().success();
    let asked = setup.asked(0);
    assert_eq!(asked[1].header("Range"), Some(format!("bytes={HALF}-").as_str()));
    assert_eq!((asked.len(), asked[1].status, setup.served(0)), (2, Some(206), setup.layer(0).1));
    setup.assert_here();
}

#[test]
fn privileged_a_layer_that_is_cut_each_time_fails_and_keeps_what_came() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::Cut { after: 1000 });
    let sentence = setup.fails(8);
    assert_says(&sentence, &setup.layer(0).0);
    assert_eq!((setup.asked(0).len(), setup.partial_size(0)), (3, 3000));
    assert_eq!(setup.heals()[0], setup.layer(0).1 - 3000);
}

#[test]
fn privileged_a_reset_is_as_good_as_a_cut() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Reset { after: HALF });
    setup.pull().success();
    assert_eq!((setup.asked(0).len(), setup.asked(0)[1].status), (2, Some(206)));
    setup.assert_here();
}

#[test]
fn privileged_a_transfer_that_stalls_is_tried_again() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Stall { after: HALF });
    let run = setup.pull_with(HASTY).success();
    assert!(run.time >= Duration::from_millis(700) && run.time < Duration::from_secs(15), "{run}");
    assert_eq!((setup.asked(0).len(), setup.served(0)), (2, setup.layer(0).1));
    setup.assert_here();
}

#[test]
fn privileged_a_transfer_that_stalls_each_time_fails() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::Stall { after: 1000 });
    assert_says(&setup.fails_with(HASTY, 8), "sent less than 1024 bytes a second");
    assert_eq!(setup.asked(0).len(), 2);
    assert_eq!(setup.heals()[0], setup.layer(0).1 - 2000);
}

#[test]
fn privileged_a_drip_below_the_least_rate_fails() {
    let Some(setup) = Setup::new() else { return };
    let every = Duration::from_millis(20);
    setup.proxy.on(setup.of_layer(0), Fault::Drip { bytes: 2, every });
    assert_says(&setup.fails_with(HASTY, 8), "sent less than 1024 bytes a second");
}

#[test]
fn privileged_a_layer_that_arrives_damaged_is_fetched_once_more() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Flip { at: HALF });
    let run = setup.pull().success();
    assert_says(&run.stderr, "arrived damaged; it is fetched once more");
    assert_eq!((setup.asked(0).len(), setup.asked(0)[1].header("Range")), (2, None));
    setup.assert_here();
}

#[test]
fn privileged_a_layer_that_is_damaged_each_time_is_refused_by_name() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0), Fault::Flip { at: HALF });
    let sentence = setup.fails(5);
    assert_says(&sentence, &setup.layer(0).0);
    assert_eq!((setup.asked(0).len(), setup.partial_size(0)), (2, 0));
    assert_eq!(setup.heals()[0], setup.layer(0).1);
}

#[test]
fn privileged_a_length_other_than_the_manifests_is_refused() {
    for by in [-10, 10] {
        let Some(setup) = Setup::new() else { return };
        setup.proxy.on(setup.of_layer(0), Fault::WrongLength { by });
        let sentence = setup.fails(8);
        assert_says(&sentence, &format!("where the manifest says {}", setup.layer(0).1));
        assert_eq!(setup.heals()[0], setup.layer(0).1);
    }
}

#[test]
fn privileged_a_wrong_length_that_passes_does_no_harm() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0).first(1), Fault::WrongLength { by: 10 });
    setup.proxy.on(setup.of_layer(1), Fault::NoLength);
    setup.pull().success();
    setup.assert_here();
}

#[test]
fn privileged_a_server_that_ignores_ranges_begins_anew() {
    let Some(setup) = Setup::new() else { return };
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Cut { after: HALF });
    setup.proxy.on(setup.of_layer(0), Fault::IgnoreRange);
    setup.pull().success();
    assert_eq!((setup.asked(0).len(), setup.asked(0)[1].status), (2, Some(200)));
    assert_eq!(setup.served(0), setup.layer(0).1 + HALF);
    setup.assert_here();
}

#[test]
fn privileged_another_range_than_asked_for_is_not_taken() {
    let Some(setup) = Setup::new() else { return };
    let wrong = Fault::WrongRange(format!("bytes 0-{}/{}", HALF - 1, setup.layer(0).1));
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Cut { after: HALF });
    setup.proxy.on(setup.of_layer(0).nth(2), wrong);
    setup.pull().success();
    assert_eq!((setup.asked(0).len(), setup.asked(0)[2].header("Range")), (3, None));
    setup.assert_here();
}

#[test]
fn privileged_earlier_failures_are_forgotten_as_a_download_gets_on() {
    let Some(setup) = Setup::new() else { return };
    // With two attempts, one cut of each layer is all that there may be without getting on.
    setup.proxy.on(setup.of_layer(0).first(1), Fault::Cut { after: HALF });
    setup.proxy.on(setup.of_layer(1).first(1), Fault::HangUp);
    setup.pull_with(&RETRY.replace("attempts=3", "attempts=2")).success();
    setup.assert_here();
}
