use std::time::{Duration, SystemTime};

use millrace_domain::limits::{PARTS_KEPT_AGE_MAX, PARTS_KEPT_BYTES_MAX, PARTS_KEPT_MAX};

use super::{parts::Kept, *};

fn id(text: &str) -> JobId {
    text.parse().unwrap()
}

/// Writes the files of a download that can be resumed.
fn write_part(folder: &Path) {
    fs::write(folder.join("media.mp4.part"), "x").unwrap();
    fs::write(folder.join("part.json"), "{}").unwrap();
    assert!(media::can_be_resumed(folder));
}

fn keep(workspace: &Workspace, job: &str, attempt: u32) {
    let scratch = workspace.scratch(&id(job), attempt).unwrap();
    write_part(scratch.path());
    workspace.keep(scratch);
}

fn jobs(workspace: &Workspace) -> Vec<String> {
    workspace.kept().iter().map(|kept| kept.id.to_string()).collect()
}

fn set_written(kept: &Kept, time: SystemTime) {
    for entry in fs::read_dir(kept.path()).unwrap() {
        File::options().write(true).open(entry.unwrap().path()).unwrap().set_modified(time).unwrap();
    }
}

#[test]
fn a_dead_workers_folder_is_removed_and_a_living_ones_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let living = Workspace::open(dir.path()).unwrap();
    let dead = dir.path().join("dead");
    fs::create_dir(&dead).unwrap();
    File::create(dead.join(LOCK)).unwrap();
    fs::write(dead.join("media.mp4.part"), "x").unwrap();
    let other = Workspace::open(dir.path()).unwrap();
    assert!(!dead.exists() && living.folder.exists() && other.folder.exists());
    drop((living, other));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_whose_worker_was_killed_while_it_made_it_is_removed_and_one_that_is_being_made_stays() {
    let work = tempfile::tempdir().unwrap();
    let long_ago = SystemTime::now() - 2 * WORK_FOLDER_MAKING_MAX;
    for (name, has_lock, is_old) in [("a", false, true), ("b", true, true), ("c", false, false)] {
        let folder = work.path().join(format!("{MAKING}{name}"));
        fs::create_dir(&folder).unwrap();
        if has_lock {
            File::create_new(folder.join(LOCK)).unwrap();
        }
        if is_old {
            File::open(&folder).unwrap().set_modified(long_ago).unwrap();
        }
    }
    let _workspace = Workspace::open(work.path()).unwrap();
    let left: Vec<_> =
        ["a", "b", "c"].iter().filter(|name| work.path().join(format!("{MAKING}{name}")).exists()).collect();
    assert_eq!(left, [&"c"]);
}

#[test]
fn a_work_folder_that_is_gone_is_a_reason_to_take_no_job() {
    let work = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(work.path()).unwrap();
    assert_eq!(workspace.room().shortage, None);
    fs::remove_dir_all(&workspace.folder).unwrap();
    let shortage = workspace.room().shortage.unwrap();
    assert!(shortage.contains("nothing can be written"), "{shortage}");
}

#[test]
fn a_scratch_folder_is_empty_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(dir.path()).unwrap();
    let scratch = workspace.scratch(&id("a"), 1).unwrap();
    write_part(scratch.path());
    let path = scratch.path().to_owned();
    drop(scratch);
    assert!(!path.exists());
    let scratch = workspace.scratch(&id("a"), 2).unwrap();
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn what_is_kept_goes_to_the_next_attempt_of_its_job_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(dir.path()).unwrap();
    keep(&workspace, "a", 1);
    let other = workspace.scratch(&id("b"), 2).unwrap();
    let next = workspace.scratch(&id("a"), 2).unwrap();
    let same = workspace.scratch(&id("a"), 3).unwrap();
    let resumable = [&other, &next, &same].map(|scratch| media::can_be_resumed(scratch.path()));
    assert_eq!((resumable, jobs(&workspace)), ([false, true, false], vec![]));
    // A folder without a usable part is not kept.
    workspace.keep(other);
    assert_eq!(jobs(&workspace), Vec::<String>::new());
    drop((next, same));
    drop(workspace);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_next_process_takes_over_what_a_stopped_and_a_killed_one_have_left_and_no_living_ones() {
    let dir = tempfile::tempdir().unwrap();
    let stopped = Workspace::open(dir.path()).unwrap();
    keep(&stopped, "stopped", 1);
    drop(stopped);
    let killed = dir.path().join("killed");
    for (folder, part) in [("dead.3", true), ("dead.2.kept", true), ("useless.1", false), ("odd", true)] {
        fs::create_dir_all(killed.join(folder)).unwrap();
        if part {
            write_part(&killed.join(folder));
        }
    }
    File::create(killed.join(LOCK)).unwrap();
    let living = Workspace::open(&dir.path().join("elsewhere")).unwrap();
    fs::rename(&living.folder, dir.path().join("living")).unwrap();
    let in_use = dir.path().join("living/living.1");
    fs::create_dir(&in_use).unwrap();
    write_part(&in_use);

    let next = Workspace::open(dir.path()).unwrap();
    let mut kept = jobs(&next);
    kept.sort();
    assert_eq!(kept, ["dead", "stopped"]);
    assert!(!killed.exists() && in_use.exists());
    assert!(media::can_be_resumed(next.scratch(&id("dead"), 4).unwrap().path()));
}

#[test]
fn what_is_too_old_or_too_much_goes_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(dir.path()).unwrap();
    let now = SystemTime::now();
    for number in 0..PARTS_KEPT_MAX + 2 {
        keep(&workspace, &format!("job-{number}"), 1);
        let age = Duration::from_secs(u64::try_from(100 - number).unwrap());
        set_written(workspace.kept().iter().find(|kept| kept.id == id(&format!("job-{number}"))).unwrap(), now - age);
    }
    workspace.bound_kept();
    let kept = jobs(&workspace);
    assert_eq!(kept.len(), PARTS_KEPT_MAX);
    assert_eq!((&*kept[0], &*kept[kept.len() - 1]), (&*format!("job-{}", PARTS_KEPT_MAX + 1), "job-2"));

    let of_kept = workspace.kept();
    set_written(&of_kept[3], now - PARTS_KEPT_AGE_MAX - Duration::from_secs(1));
    // A sparse file, without bytes on the disk.
    File::options()
        .write(true)
        .open(of_kept[6].path().join("media.mp4.part"))
        .unwrap()
        .set_len(PARTS_KEPT_BYTES_MAX)
        .unwrap();
    set_written(&of_kept[6], now - Duration::from_secs(90));
    workspace.bound_kept();
    let left = jobs(&workspace);
    assert!(!left.contains(&kept[3]) && !left.contains(&kept[6]), "{left:?}");
    assert_eq!(left[..3], kept[..3]);
}

#[test]
fn of_one_job_only_the_newest_part_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = Workspace::open(dir.path()).unwrap();
    for attempt in [1, 2] {
        let folder = workspace.path_of_kept(&id("a"), attempt);
        fs::create_dir(&folder).unwrap();
        write_part(&folder);
    }
    assert_eq!(workspace.kept().iter().map(|kept| kept.attempt).collect::<Vec<_>>(), [2]);
    workspace.bound_kept();
    assert_eq!(fs::read_dir(&workspace.folder).unwrap().count(), 2, "the lock and one part");
}
