use tempfile::TempDir;

use super::{
    validator::{Replies, Reply},
    *,
};
use crate::request::Bounds;

const TOTAL: u64 = 100;

struct Folder {
    dir: TempDir,
    url: SourceUrl,
    quality: Option<Quality>,
}

impl Folder {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), url: "http://e.org/v".parse().unwrap(), quality: None }
    }

    fn open(&self) -> Part<'_> {
        let (url, folder) = (&self.url, self.dir.path());
        let request = Request { url, quality: self.quality, folder, proxy: None, bounds: Bounds::default() };
        Part::open(request).unwrap()
    }

    fn write(&self, name: &str, bytes: u64) {
        fs::write(self.dir.path().join(name), vec![7; usize::try_from(bytes).unwrap()]).unwrap();
    }

    /// The files in the folder, with their lengths.
    fn files(&self) -> Vec<(String, u64)> {
        let entries = fs::read_dir(self.dir.path()).unwrap().map(Result::unwrap);
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| (name(&entry), entry.metadata().unwrap().len()))
            .filter(|(name, _)| name != RECORD)
            .collect();
        files.sort();
        files
    }

    fn is_kept(&self) -> bool {
        is_in(self.dir.path())
    }

    /// A download that has `bytes`, known to be of the version `tag`.
    fn downloaded(tag: &str, bytes: u64) -> Self {
        let folder = Self::new();
        let mut part = folder.open();
        assert_eq!(part.choose(source()), Course::On);
        folder.write("media.mp4.part", bytes);
        assert_eq!(part.end(replies(&[tag]).told(), None), Course::On);
        assert!(folder.is_kept());
        folder
    }
}

fn source() -> Option<Source> {
    Some(Source { address: "http://e.org/v.mp4".into(), format: "mp4".into() })
}

fn replies(tags: &[&str]) -> Replies {
    let mut replies = Replies::default();
    for tag in tags {
        let mut reply = Reply::new(206);
        reply.header("ETag", &format!("\"{tag}\""));
        reply.header("Content-Range", &format!("bytes 0-/{TOTAL}"));
        replies.begin(reply);
    }
    replies.end();
    replies
}

#[test]
fn what_the_source_shows_to_be_the_same_goes_on_and_everything_else_starts_over() {
    let folder = Folder::downloaded("a", 40);
    folder.write("left-by-a-tool", 1);
    let mut part = folder.open();
    assert_eq!((folder.files(), folder.is_kept()), (vec![("media.mp4.part".into(), 40)], false));
    assert_eq!(part.choose(source()), Course::Unproven);
    assert_eq!(part.advance(Told::Nothing, 41), Course::Unproven);
    assert_eq!(part.advance(replies(&["a"]).told(), 50), Course::Resumed(40));
    assert_eq!(part.advance(replies(&["a"]).told(), 60), Course::On);
    assert!(folder.is_kept());

    for told in [replies(&["b"]), replies(&["a", "b"]), Replies::default()] {
        let folder = Folder::downloaded("a", 40);
        let mut part = folder.open();
        part.choose(source());
        assert_eq!(part.end(told.told(), Some(&folder.dir.path().join("media.mp4"))), Course::Over, "{told:?}");
        assert!(!folder.is_kept());
    }
    for other in [None, Some(Source { format: "webm".into(), ..source().unwrap() })] {
        let folder = Folder::downloaded("a", 40);
        assert_eq!(folder.open().choose(other), Course::Over);
        folder.open();
        assert_eq!(folder.files(), []);
    }
}

#[test]
fn only_what_was_there_before_the_last_news_is_surely_of_the_version() {
    let folder = Folder::new();
    let mut part = folder.open();
    part.choose(source());
    assert_eq!(part.advance(Told::Nothing, 1), Course::On);
    assert_eq!(part.advance(replies(&["a"]).told(), 30), Course::On);
    part.advance(replies(&["a"]).told(), 60);
    // The worker is killed; its downloader had written more.
    folder.write("media.mp4.part", 75);
    folder.open();
    assert_eq!(folder.files(), [("media.mp4.part".into(), 30)]);
}

#[test]
fn a_part_that_was_begun_anew_is_not_used() {
    let folder = Folder::downloaded("a", 40);
    folder.write("media.mp4.part", 39);
    folder.open();
    assert_eq!(folder.files(), []);

    let folder = Folder::new();
    let mut part = folder.open();
    part.choose(source());
    for (bytes, kept) in [(30, false), (60, true), (10, false), (20, true)] {
        part.advance(replies(&["a"]).told(), bytes);
        assert_eq!(folder.is_kept(), kept, "{bytes}");
    }
    assert_eq!(part.advance(replies(&["a", "b"]).told(), 30), Course::Over);
    assert!(!folder.is_kept());
}

#[test]
fn a_part_stays_where_the_source_was_not_even_asked_for_the_file() {
    let folder = Folder::downloaded("a", 40);
    for _ in 0..2 {
        let mut part = folder.open();
        assert!(!folder.is_kept(), "a worker that is killed now leaves no usable part");
        assert_eq!(part.end(Told::Nothing, None), Course::Unproven);
        assert_eq!((folder.files(), folder.is_kept()), (vec![("media.mp4.part".into(), 40)], true));
    }
}

#[test]
fn of_a_complete_file_the_last_byte_is_asked_for_again() {
    for name in ["media.mp4", "media.mp4.part"] {
        let folder = Folder::downloaded("a", 40);
        let mut part = folder.open();
        part.choose(source());
        fs::remove_file(folder.dir.path().join("media.mp4.part")).unwrap();
        folder.write(name, TOTAL);
        let file = folder.dir.path().join(name);
        assert_eq!(part.end(replies(&["a"]).told(), Some(&file)), Course::Resumed(40));
        folder.open();
        assert_eq!(folder.files(), [("media.mp4.part".into(), TOTAL - 1)]);
    }
}

#[test]
fn a_file_that_was_worked_on_after_its_download_is_not_kept() {
    let folder = Folder::new();
    let mut part = folder.open();
    part.choose(source());
    folder.write("media.mp4", TOTAL + 1);
    assert_eq!(part.end(replies(&["a"]).told(), Some(&folder.dir.path().join("media.mp4"))), Course::On);
    assert!(!folder.is_kept());
}

#[test]
fn another_request_two_files_and_a_broken_record_start_over() {
    let mut folder = Folder::downloaded("a", 40);
    folder.quality = Some("480p".parse().unwrap());
    folder.open();
    assert_eq!(folder.files(), []);

    for (name, bytes) in [("media.webm.part", 40), ("media.mp4.part-Frag3", 1), (RECORD, 3)] {
        let folder = Folder::downloaded("a", 40);
        folder.write(name, bytes);
        folder.open();
        assert_eq!(folder.files(), [], "{name}");
    }
}
