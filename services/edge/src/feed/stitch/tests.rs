//! Every interleaving of a live feed that loses, repeats, reorders and delays, with loads that are stale, late or fail.

mod model;

use millrace_domain::{Event, EventBody, Stage, limits::FEED_PENDING_MAX};
use proptest::{collection::vec, prelude::*, test_runner::TestCaseResult};

use self::model::{Model, Step, id, log, steps, submitted};
use super::*;

/// Enough for a whole life and faults between its events.
const STEPS_MAX: usize = 120;

/// `PROPTEST_CASES` may ask for more.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    ProptestConfig { cases: config.cases.max(1000), ..config }
}

fn play(log: Vec<Entry>, steps: &[Step]) -> Result<Model, TestCaseError> {
    let mut model = Model::new(log);
    for step in steps {
        model.take(step)?;
    }
    Ok(model)
}

fn converges(mut model: Model) -> TestCaseResult {
    model.heal()?;
    prop_assert_eq!(model.stitch.state().map(|state| state.seq), model.shown);
    prop_assert_eq!(told(model.stitch.state()), told(model.truth().as_ref()), "what is shown last is not the newest");
    Ok(())
}

/// The part of a state that clients see. After completion only noise follows, and the edge does not load it.
fn told(state: Option<&JobState>) -> Option<JobState> {
    state.map(|state| {
        if state.stage == Stage::Completed {
            JobState { seq: 0, events_seq: 0, submitted_seq: 0, ..state.clone() }
        } else {
            state.clone()
        }
    })
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn whatever_the_feed_does_only_true_and_newer_states_are_shown_and_the_last_one_in_the_end(
        log in log(),
        steps in vec(steps(), 0..STEPS_MAX),
    ) {
        converges(play(log, &steps)?)?;
    }

    #[test]
    fn watchers_who_come_back_while_a_load_for_them_is_under_way_get_the_last_state_too(
        log in log(),
        before in vec(steps(), 0..40),
        after in vec(steps(), 0..40),
    ) {
        let mut model = play(log, &before)?;
        model.watched_anew();
        for step in &after {
            model.take(step)?;
        }
        converges(model)?;
    }

    #[test]
    fn a_feed_without_faults_needs_no_load_but_the_first_and_for_what_follows_a_failure(log in log()) {
        let mut model = Model::new(log);
        let mut needed = 1;
        while model.stored < model.log.len() {
            needed += usize::from(model.truth().is_some_and(|state| state.stage.is_retryable()));
            model.take(&Step::Store { copies: 1 })?;
            model.take(&Step::Deliver(0))?;
            model.take(&Step::Answer { lag: 0 })?;
            model.take(&Step::Report)?;
        }
        if model.truth().is_some() {
            prop_assert!(model.loads <= needed, "{} loads where {needed} do", model.loads);
        }
        if model.log[0].kind == Kind::Submitted {
            prop_assert_eq!(model.stitch.state().cloned(), model.truth());
        }
    }
}

fn noise(seq: u64) -> Entry {
    Entry { seq, kind: Kind::Events, event: Err(millrace_domain::Undecodable("noise".into())) }
}

fn heard(seq: u64, previous: u64) -> Heard {
    Heard { entry: noise(seq), previous }
}

fn state(seq: u64) -> JobState {
    JobState { seq, events_seq: if seq == 1 { 0 } else { seq }, ..fold(None, &id(), &submitted(1)).unwrap() }
}

#[test]
fn an_event_after_a_retry_that_was_lost_does_not_hide_it() {
    let event = |seq, body| Event { at: jiff::Timestamp::from_second(seq).unwrap(), body };
    let started = |attempt| EventBody::Started { worker: "w".into(), attempt };
    let entry = |seq: u64, kind, body| Entry { seq, kind, event: Ok(event(seq.cast_signed(), body)) };
    let canceled = entry(2, Kind::Events, EventBody::Canceled);
    let resubmitted = entry(3, Kind::Submitted, EventBody::Resubmitted);
    let again = entry(4, Kind::Events, started(2));
    let truth = [submitted(1), canceled.clone(), resubmitted, again.clone()];

    let mut stitch = Stitch::default();
    stitch.watched();
    stitch.loaded(&id(), Source::Any, Some(state(1)));
    assert!(stitch.heard(&id(), Heard { entry: canceled, previous: 0 }).publish);
    // 3 is lost; 4 says that it follows 2, which is true of the events subject.
    assert_eq!(stitch.heard(&id(), Heard { entry: again, previous: 2 }).load, Some(Source::Any));
    // A replica that has the retry and no more is enough.
    let loaded = millrace_domain::fold_all(None, &id(), &truth[..3]);
    assert_eq!(stitch.loaded(&id(), Source::Any, loaded), Todo { publish: true, load: None, refuted: false });
    assert_eq!(stitch.state().cloned(), millrace_domain::fold_all(None, &id(), &truth));
}

#[test]
fn a_message_that_came_while_the_leader_was_being_read_is_not_forgotten() {
    let mut stitch = Stitch::default();
    stitch.watched();
    stitch.loaded(&id(), Source::Any, Some(state(1)));
    assert_eq!(stitch.announced(2).load, Some(Source::Leader));
    // The leader has answered with 2, the answer is on its way; 3 is lost and 4 comes.
    assert_eq!(stitch.heard(&id(), heard(4, 3)), Todo::default());
    let todo = stitch.loaded(&id(), Source::Leader, Some(state(2)));
    assert_eq!(todo, Todo { publish: true, load: Some(Source::Leader), refuted: false }, "4 exists and is not shown");
    assert!(stitch.loaded(&id(), Source::Leader, Some(state(3))).publish);
    assert_eq!(stitch.state().unwrap().seq, 4, "4 was held back until it fitted");
}

#[test]
fn what_a_client_has_seen_elsewhere_is_not_forgotten_while_a_load_is_under_way_or_when_it_fails() {
    let mut stitch = Stitch::default();
    assert_eq!(stitch.watched().load, Some(Source::Any));
    assert_eq!(stitch.announced(5), Todo::default(), "one load at a time");
    let todo = stitch.loaded(&id(), Source::Any, Some(state(3)));
    assert_eq!(todo, Todo { publish: true, load: Some(Source::Leader), refuted: false });
    stitch.load_failed();
    assert_eq!(stitch.watched().load, Some(Source::Any));
    assert_eq!(stitch.loaded(&id(), Source::Any, Some(state(3))).load, Some(Source::Leader));
    assert_eq!(
        stitch.loaded(&id(), Source::Leader, Some(state(5))),
        Todo { publish: true, load: None, refuted: false }
    );
}

#[test]
fn a_claim_that_the_leader_does_not_confirm_is_dropped() {
    let mut stitch = Stitch::default();
    stitch.watched();
    stitch.announced(u64::MAX);
    assert_eq!(stitch.loaded(&id(), Source::Any, None).load, Some(Source::Leader));
    assert_eq!(stitch.loaded(&id(), Source::Leader, None), Todo::default());
    assert_eq!(
        stitch.heard(&id(), Heard { entry: submitted(1), previous: 0 }),
        Todo { publish: true, load: None, refuted: false }
    );
}

#[test]
fn a_first_load_that_lacks_what_was_heard_before_the_job_was_watched_asks_the_leader_once() {
    let mut stitch = Stitch::default();
    stitch.watched();
    stitch.swept(12);
    assert_eq!(stitch.loaded(&id(), Source::Any, None).load, Some(Source::Leader));
    // It was removed since.
    let todo = stitch.loaded(&id(), Source::Leader, None);
    assert_eq!((todo.load, todo.publish), (None, false));
}

#[test]
fn what_is_held_back_stays_bounded() {
    let mut stitch = Stitch::default();
    stitch.watched();
    for seq in 2..10 * FEED_PENDING_MAX as u64 {
        assert_eq!(stitch.heard(&id(), heard(2 * seq, 2 * seq - 1)), Todo::default());
        assert!(stitch.pending.len() <= FEED_PENDING_MAX);
    }
    assert_eq!(stitch.loaded(&id(), Source::Any, Some(state(1))).load, Some(Source::Leader));
}

#[test]
fn an_event_that_cannot_be_read_is_counted_but_changes_nothing_else() {
    let mut stitch = Stitch::default();
    stitch.watched();
    stitch.loaded(&id(), Source::Any, Some(state(1)));
    assert!(stitch.heard(&id(), heard(7, 0)).publish);
    let newer = Event { at: jiff::Timestamp::UNIX_EPOCH, body: EventBody::Unknown };
    let entry = Entry { seq: 9, kind: Kind::Events, event: Ok(newer) };
    assert!(stitch.heard(&id(), Heard { entry, previous: 7 }).publish);
    assert_eq!(stitch.state(), Some(&JobState { events_seq: 9, ..state(9) }));
}

#[test]
fn what_was_announced_and_the_leader_does_not_have_is_refuted_and_only_by_a_load_that_began_after() {
    let mut stitch = Stitch::default();
    stitch.watched();
    assert!(!stitch.was_answered());
    assert_eq!(stitch.announced(9), Todo::default(), "a load is in flight");
    let any = stitch.loaded(&id(), Source::Any, Some(state(5)));
    assert_eq!(any, Todo { publish: true, load: Some(Source::Leader), refuted: false }, "a replica may be stale");
    assert!(stitch.was_answered());
    assert_eq!(stitch.announced(12), Todo::default());
    let early = stitch.loaded(&id(), Source::Leader, Some(state(5)));
    assert_eq!(early, Todo { load: Some(Source::Leader), ..Todo::default() }, "12 may have come after that answer");
    let late = stitch.loaded(&id(), Source::Leader, Some(state(5)));
    assert_eq!(late, Todo { refuted: true, ..Todo::default() });
    assert_eq!(stitch.announced(5), Todo::default());
}
