//! Properties of `fold`.

use millrace_domain::{Entry, Event, EventBody, JobState, Stage, fold, fold_all, subjects::Kind};
use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    generate::{garbage, job, noise, steps, submission, undecodable},
    log::Log,
};

/// A history as workers write it, or entries in random order.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    prop_oneof![garbage(), (submission(), steps()).prop_map(|(submission, steps)| Log::of(submission, &steps).entries)]
}

fn all(entries: &[Entry]) -> Option<JobState> {
    fold_all(None, &job(), entries)
}

/// The state without its position.
fn placeless(state: Option<JobState>) -> Option<JobState> {
    state.map(|state| JobState { seq: 0, events_seq: 0, submitted_seq: 0, ..state })
}

const fn rank(stage: Stage) -> u8 {
    match stage {
        Stage::Queued | Stage::Retrying => 0,
        Stage::FetchingInfo => 1,
        Stage::Downloading => 2,
        Stage::Uploading => 3,
        Stage::Finishing => 4,
        Stage::Completed | Stage::Failed | Stage::Canceled => 5,
    }
}

proptest! {
    #[test]
    fn a_state_that_was_stored_and_read_back_goes_on_like_one_that_was_not(entries in entries(), cut: Index) {
        let (before, after) = entries.split_at(cut.index(entries.len() + 1));
        let stored = serde_json::to_vec(&all(before)).unwrap();
        let read: Option<JobState> = serde_json::from_slice(&stored).unwrap();
        prop_assert_eq!(&read, &all(before));
        prop_assert_eq!(fold_all(read, &job(), after), all(&entries));
    }

    #[test]
    fn an_entry_that_was_applied_changes_nothing_when_it_comes_again(
        entries in entries(), replays in vec((any::<Index>(), any::<Index>()), 0..30),
    ) {
        let mut state = None;
        for (count, entry) in entries.iter().enumerate() {
            state = fold(state, &job(), entry);
            for (place, which) in &replays {
                if place.index(entries.len()) == count {
                    state = fold(state, &job(), &entries[which.index(count + 1)]);
                }
            }
            prop_assert_eq!(&state, &all(&entries[..=count]));
        }
        prop_assert_eq!(&fold_all(state.clone(), &job(), &entries), &state);
    }

    #[test]
    fn within_an_attempt_neither_progress_nor_stage_goes_back_and_no_attempt_comes_twice(entries in entries()) {
        let mut state: Option<JobState> = None;
        for entry in &entries {
            let next = fold(state.clone(), &job(), entry);
            if let (Some(old), Some(new)) = (&state, &next) {
                prop_assert!(new.attempt >= old.attempt);
                if new.attempt == old.attempt {
                    prop_assert!(new.progress >= old.progress, "{:?} after {old:?}", new);
                    prop_assert!(rank(new.stage) >= rank(old.stage), "{:?} after {old:?}", new);
                }
            }
            prop_assert!(state.is_none() || next.is_some(), "a job does not vanish");
            state = next;
        }
    }

    #[test]
    fn after_the_end_only_the_sequence_moves_until_a_failed_or_canceled_job_is_tried_again(
        entries in entries(),
        more in garbage(),
    ) {
        let Some(state) = all(&entries).filter(JobState::is_end) else { return Ok(()) };
        let more = more.into_iter().map(|entry| Entry { seq: entry.seq + state.seq, ..entry });
        // After a failure or a cancel, a person may retry the job.
        let is_retry = |entry: &Entry| entry.event.as_ref().is_ok_and(|event| event.body == EventBody::Resubmitted);
        let shifted: Vec<_> = more.take_while(|entry| state.stage == Stage::Completed || !is_retry(entry)).collect();
        let last = shifted.last().map_or(state.seq, |entry| entry.seq);
        let after = fold_all(Some(state.clone()), &job(), &shifted).unwrap();
        prop_assert_eq!(after.seq, last);
        prop_assert_eq!(placeless(Some(after)), placeless(Some(state)));
    }

    #[test]
    fn a_retry_of_a_failed_or_canceled_job_begins_afresh_and_keeps_what_the_video_is(entries in entries()) {
        let Some(state) = all(&entries).filter(|state| state.stage.is_retryable() && state.attempt < u32::MAX) else {
            return Ok(());
        };
        let event = Event { at: state.updated_at, body: EventBody::Resubmitted };
        let entry = Entry { seq: state.seq + 1, kind: Kind::Submitted, event: Ok(event) };
        let again = fold(Some(state.clone()), &job(), &entry).unwrap();
        prop_assert_eq!((again.stage, again.progress, again.attempt), (Stage::Queued, 0, state.attempt + 1));
        prop_assert_eq!((again.failures, again.workers_lost), (0, 0));
        prop_assert_eq!((&again.failure, again.retry_at, &again.worker), (&None, None, &None));
        prop_assert_eq!((&again.file, again.file_size), (&None, None));
        prop_assert_eq!((again.storage_provider, again.download), (None, None));
        prop_assert_eq!((&again.submission, &again.video_info), (&state.submission, &state.video_info));
        prop_assert_eq!((again.submitted_seq, again.events_seq), (entry.seq, state.events_seq));
    }

    #[test]
    fn what_cannot_be_read_moves_the_sequence_and_nothing_else(
        entries in entries(), noise in vec((any::<Index>(), any::<bool>(), noise()), 1..8),
    ) {
        let mut mixed: Vec<(bool, Entry)> = entries.into_iter().map(|entry| (true, entry)).collect();
        for (place, submitted, payload) in noise {
            let event = Event::decode(&payload);
            prop_assert!(matches!(event, Err(_) | Ok(Event { body: EventBody::Unknown, .. })), "no noise: {event:?}");
            let kind = if submitted { Kind::Submitted } else { Kind::Events };
            mixed.insert(place.index(mixed.len() + 1), (false, Entry { seq: 0, kind, event }));
        }
        for (seq, (_, entry)) in (1..).zip(&mut mixed) {
            entry.seq = seq;
        }
        let clean = all(&mixed.iter().filter(|(known, _)| *known).map(|(_, entry)| entry.clone()).collect::<Vec<_>>());
        let noisy = all(&mixed.iter().map(|(_, entry)| entry.clone()).collect::<Vec<_>>());
        if let Some(noisy) = &noisy {
            prop_assert_eq!(noisy.seq, mixed.len() as u64);
            let first = mixed.iter().position(|(_, entry)| all(std::slice::from_ref(entry)).is_some()).unwrap();
            let last_of_events = mixed[first..].iter().rev().find(|(_, entry)| entry.kind == Kind::Events);
            prop_assert_eq!(noisy.events_seq, last_of_events.map_or(0, |(_, entry)| entry.seq));
            let last_submission = mixed.iter().rev().find(|(_, entry)| entry.kind == Kind::Submitted);
            prop_assert_eq!(noisy.submitted_seq, last_submission.unwrap().1.seq);
        }
        prop_assert_eq!(placeless(noisy), placeless(clean));
    }

    #[test]
    fn an_event_on_the_wrong_subject_moves_the_sequence_and_nothing_else(entries in entries()) {
        let fitting: Vec<_> = entries
            .iter()
            .map(|entry| match &entry.event {
                Ok(event) if event.body.kind() != entry.kind => Entry { event: undecodable(), ..entry.clone() },
                _ => entry.clone(),
            })
            .collect();
        prop_assert_eq!(all(&entries), all(&fitting));
    }

    #[test]
    fn an_upload_is_told_from_its_begin_on_until_its_file_is_there_or_another_has_begun(entries in entries()) {
        let mut state = None;
        for entry in &entries {
            let before: Option<JobState> = state;
            state = fold(before.clone(), &job(), entry);
            let upload = |state: &Option<JobState>| state.as_ref().and_then(|state| state.upload.clone());
            if upload(&before) == upload(&state) {
                continue;
            }
            match entry.event.as_ref().map(|event| &event.body) {
                Ok(EventBody::Uploading { key: Some(key), .. }) => {
                    prop_assert_eq!(&upload(&state).unwrap().key, key);
                }
                Ok(EventBody::Uploaded(file)) => prop_assert_eq!(upload(&before).unwrap().key, file.key.clone()),
                other => prop_assert!(false, "{other:?} has changed the upload"),
            }
        }
    }
}
