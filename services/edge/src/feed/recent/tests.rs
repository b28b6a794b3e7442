//! Single cases of [`Recent`].

use std::time::Duration;

use super::*;

fn ids(names: &[&str]) -> Vec<JobId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn newest(recent: &Recent, basis: Basis, names: &[&str]) -> Option<Vec<u64>> {
    recent.newest(basis, &ids(names)).map(|newest| newest.of_each)
}

fn projected(recent: &mut Recent, up_to: u64, is_all: bool, now: Instant) {
    recent.asked_at = None;
    assert!(recent.ask(RECENT_STATES_MIN, now));
    recent.projected(Progress { up_to, is_all }, now);
}

#[test]
fn the_newest_event_of_each_job_is_told_also_of_one_that_is_asked_for_twice() {
    let (mut recent, now) = (Recent::default(), Instant::now());
    for (seq, job) in [(5, "a"), (6, "b"), (7, "a"), (8, "c")] {
        recent.heard(seq, job);
    }
    projected(&mut recent, 5, false, now);
    let basis = recent.basis(now).unwrap();
    assert_eq!(newest(&recent, basis, &["a", "b", "nobody", "a"]), Some(vec![7, 6, 0, 7]));
    recent.heard(9, "b");
    assert_eq!(newest(&recent, basis, &["b"]), Some(vec![9]), "also what came since");
}

#[test]
fn nothing_is_told_of_what_the_projector_has_not_written_and_nobody_heard() {
    let (mut recent, now) = (Recent::default(), Instant::now());
    recent.heard(5, "a");
    assert_eq!(recent.basis(now), None, "the projector's position is unknown");
    projected(&mut recent, 3, false, now);
    assert_eq!(recent.basis(now), None, "4 was not heard");
    projected(&mut recent, 4, false, now);
    assert_eq!(recent.basis(now), Some(Basis(4)));
    assert_eq!(recent.basis(now + PROJECTED_AGE_MAX + Duration::from_millis(1)), None, "too long ago");
}

#[test]
fn a_message_that_was_lost_is_noticed_until_the_projector_has_written_it() {
    let (mut recent, now) = (Recent::default(), Instant::now());
    recent.heard(5, "a");
    projected(&mut recent, 5, false, now);
    let basis = recent.basis(now).unwrap();
    recent.heard(7, "b");
    assert_eq!(newest(&recent, basis, &["a"]), None, "6 may be of this job");
    recent.heard(6, "a");
    assert_eq!(recent.basis(now), None, "a late one changes nothing");
    projected(&mut recent, 6, false, now);
    assert_eq!(newest(&recent, recent.basis(now).unwrap(), &["a", "b"]), Some(vec![5, 7]));
    // Nothing follows the one that was lost.
    projected(&mut recent, 8, false, now);
    recent.heard(9, "a");
    assert_eq!(newest(&recent, recent.basis(now).unwrap(), &["a", "b"]), Some(vec![9, 7]));
}

#[test]
fn whether_everything_was_heard_is_known_of_what_has_no_hole() {
    let mut recent = Recent::default();
    assert!(recent.has_heard(4, 4) && !recent.has_heard(4, 5), "5 was not heard yet");
    for seq in [5, 6] {
        recent.heard(seq, "a");
    }
    assert!(recent.has_heard(4, 6) && recent.last() == 6);
    recent.heard(8, "a");
    assert!(recent.has_heard(7, 8) && !recent.has_heard(7, 9), "9 is in the log and was not heard");
    assert!(!recent.has_heard(6, 8), "7 was lost");
}

#[test]
fn after_a_disturbance_it_begins_anew_where_a_message_comes_or_the_projector_has_everything() {
    let (mut recent, now) = (Recent::default(), Instant::now());
    recent.heard(5, "a");
    projected(&mut recent, 5, false, now);
    let basis = recent.basis(now).unwrap();
    recent.disturbed();
    assert_eq!((recent.basis(now), newest(&recent, basis, &["a"])), (None, None));
    projected(&mut recent, 6, false, now);
    assert_eq!(recent.basis(now), None, "the log has more that was not heard");
    recent.ask(RECENT_STATES_MIN, now);
    recent.disturbed();
    recent.projected(Progress { up_to: 7, is_all: true }, now);
    assert_eq!(recent.basis(now), None, "it was asked before");
    projected(&mut recent, 7, true, now);
    assert_eq!(recent.basis(now), Some(Basis(7)));
    recent.heard(8, "a");
    assert_eq!(newest(&recent, Basis(7), &["a"]), Some(vec![8]));
}

#[test]
fn more_events_than_it_has_room_for_are_not_taken_for_none() {
    let (mut recent, now) = (Recent::default(), Instant::now());
    recent.heard(1, "a");
    projected(&mut recent, 1, false, now);
    let basis = recent.basis(now).unwrap();
    for seq in 2..=RECENT_EVENTS as u64 + 1 {
        recent.heard(seq, if seq == 2 { "b" } else { "c" });
    }
    assert_eq!(newest(&recent, basis, &["b"]), Some(vec![2]), "the oldest that there is room for");
    recent.heard(RECENT_EVENTS as u64 + 2, "c");
    assert_eq!((recent.basis(now), newest(&recent, basis, &["b"])), (None, None));
}
