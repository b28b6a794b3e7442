//! Combines the progress of several files into one that never falls.

use millrace_domain::event::Progress;

use super::protocol::{FileProgress, FileSize};

/// A file of unknown size counts as a tenth of one of known size, as sound beside a picture.
const UNKNOWN_FILE_PART: u64 = 10;

/// The combined progress of a download's files. It never falls, neither in bytes nor as a part of the whole, although
/// files begin at zero, estimates change, and the downloader starts a file over if the server cannot resume.
#[derive(Debug, Default)]
pub(crate) struct Combined {
    files: Vec<FileSize>,
    duration: Option<u64>,
    /// Index of the current file.
    file: usize,
    file_finished: bool,
    file_bytes: u64,
    /// Bytes of the files before the current one.
    finished_bytes: u64,
    last: Option<Progress>,
}

impl Combined {
    /// Sets the files that will be downloaded, and the duration in seconds.
    pub(crate) fn plan(&mut self, files: Vec<FileSize>, duration: Option<u64>) {
        self.files = files;
        self.duration = duration;
    }

    /// Whether any byte has arrived.
    pub(crate) const fn begun(&self) -> bool {
        self.file_bytes > 0 || self.finished_bytes > 0
    }

    /// Adds the current file's progress; returns the total progress unless it is unchanged.
    pub(crate) fn update(&mut self, now: &FileProgress) -> Option<Progress> {
        if self.file_finished {
            self.file += 1;
            self.finished_bytes += std::mem::take(&mut self.file_bytes);
        }
        self.file_finished = now.finished;
        self.file_bytes = self.file_bytes.max(now.downloaded_bytes);
        let downloaded_bytes = self.finished_bytes + self.file_bytes;
        let total_bytes = self.total(now).map(|total| total.max(downloaded_bytes));
        let progress = self.rising(Progress { downloaded_bytes, total_bytes, ..Progress::default() });
        if self
            .last
            .is_some_and(|last| (last.downloaded_bytes, last.total_bytes) == (downloaded_bytes, progress.total_bytes))
        {
            return None;
        }
        self.last = Some(progress);
        let bytes_per_second = now.bytes_per_second.filter(|speed| *speed > 0);
        let eta_seconds =
            progress.total_bytes.zip(bytes_per_second).map(|(total, speed)| (total - downloaded_bytes).div_ceil(speed));
        Some(Progress { bytes_per_second, eta_seconds, ..progress })
    }

    /// The least possible total after the update by `now`: the bytes that arrived, and the file's size as reported by
    /// the server.
    pub(crate) fn least(&self, now: &FileProgress) -> u64 {
        self.finished_bytes.saturating_add(self.file_bytes.max(now.total_bytes.unwrap_or_default()))
    }

    /// Bytes of all files together, if they can be estimated.
    fn total(&self, now: &FileProgress) -> Option<u64> {
        let file = if now.finished { Some(self.file_bytes) } else { file_total(now) }?.max(self.file_bytes);
        let later = (self.file + 1..self.files.len()).map(|index| self.later_total(index, file));
        Some(later.fold(self.finished_bytes.saturating_add(file), u64::saturating_add))
    }

    /// Bytes of a file that has not begun, estimated from the current one of `current` bytes.
    fn later_total(&self, index: usize, current: u64) -> u64 {
        let rate = |index: usize| self.files.get(index).and_then(|file| file.bit_rate).filter(|rate| *rate > 0);
        let by_rate =
            || u64::try_from(u128::from(current) * u128::from(rate(index)?) / u128::from(rate(self.file)?)).ok();
        let by_duration = || Some(rate(index)?.checked_mul(self.duration?)? / 8);
        self.files[index].bytes.or_else(by_rate).or_else(by_duration).unwrap_or(current / UNKNOWN_FILE_PART)
    }

    /// Lowers the total if the part of the whole would otherwise fall.
    fn rising(&self, now: Progress) -> Progress {
        let Some(Progress { downloaded_bytes: done, total_bytes: Some(total), .. }) = self.last else { return now };
        if done == 0 {
            return now;
        }
        // now.downloaded / total >= done / total_before
        let most = u128::from(now.downloaded_bytes) * u128::from(total) / u128::from(done);
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        Progress { total_bytes: Some(now.total_bytes.map_or(most, |total| total.min(most))), ..now }
    }
}

fn file_total(now: &FileProgress) -> Option<u64> {
    now.total_bytes.or_else(|| match (now.fragments, now.fragments_total) {
        // The first fragment may be only a header; the downloader then estimates all others at its size.
        (Some(0), Some(_)) => None,
        (Some(done), Some(all)) => {
            now.estimated_bytes.or_else(|| Some(now.downloaded_bytes.saturating_mul(all) / done))
        }
        _ => now.estimated_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(downloaded_bytes: u64, total_bytes: u64) -> FileProgress {
        FileProgress {
            downloaded_bytes,
            total_bytes: Some(total_bytes),
            bytes_per_second: Some(100),
            ..FileProgress::default()
        }
    }

    fn finished(bytes: u64) -> FileProgress {
        FileProgress { finished: true, ..direct(bytes, bytes) }
    }

    fn fragment(downloaded_bytes: u64, estimated_bytes: u64, fragments: u64) -> FileProgress {
        FileProgress {
            downloaded_bytes,
            estimated_bytes: Some(estimated_bytes),
            fragments: Some(fragments),
            fragments_total: Some(10),
            ..FileProgress::default()
        }
    }

    fn size(bytes: Option<u64>, bit_rate: Option<u64>) -> FileSize {
        FileSize { bytes, bit_rate }
    }

    /// (bytes, total) of each report, after checking that neither bytes nor part fall.
    fn run(combined: &mut Combined, steps: &[FileProgress]) -> Vec<(u64, Option<u64>)> {
        let reports: Vec<_> = steps.iter().filter_map(|step| combined.update(step)).collect();
        for pair in reports.windows(2) {
            assert!(pair[1].downloaded_bytes >= pair[0].downloaded_bytes, "{pair:?}");
            if let Some(before) = pair[0].total_bytes {
                let after = pair[1].total_bytes.expect("a total stays");
                assert!(
                    u128::from(pair[1].downloaded_bytes) * u128::from(before)
                        >= u128::from(pair[0].downloaded_bytes) * u128::from(after),
                    "{pair:?}"
                );
            }
        }
        reports.iter().map(|progress| (progress.downloaded_bytes, progress.total_bytes)).collect()
    }

    #[test]
    fn one_file_is_reported_as_it_is_and_only_on_news() {
        let mut combined = Combined::default();
        let reports =
            run(&mut combined, &[direct(10, 100), direct(10, 100), direct(60, 100), direct(100, 100), finished(100)]);
        assert_eq!(reports, [(10, Some(100)), (60, Some(100)), (100, Some(100))]);
        let progress = Combined::default().update(&direct(10, 1000)).unwrap();
        assert_eq!((progress.bytes_per_second, progress.eta_seconds), (Some(100), Some(10)));
    }

    #[test]
    fn picture_and_sound_make_one_whole() {
        let steps = [direct(100, 900), finished(900), direct(10, 100), finished(100)];
        let whole = [(100, Some(1000)), (900, Some(1000)), (910, Some(1000)), (1000, Some(1000))];
        for plan in [
            vec![size(Some(900), None), size(Some(100), None)],
            vec![size(None, Some(9000)), size(None, Some(1000))],
            vec![size(None, None), size(None, Some(80))], // 80 bits a second for 10 seconds
        ] {
            let mut combined = Combined::default();
            combined.plan(plan, Some(10));
            assert_eq!(run(&mut combined, &steps), whole);
        }
    }

    #[test]
    fn a_second_file_that_was_unknown_or_greater_than_thought_does_not_turn_progress_back() {
        for plan in [vec![], vec![size(None, None); 2]] {
            let mut combined = Combined::default();
            combined.plan(plan, None);
            let reports = run(
                &mut combined,
                &[direct(450, 900), finished(900), direct(1, 5000), direct(2500, 5000), finished(5000)],
            );
            assert_eq!(reports.last(), Some(&(5900, Some(5900))));
        }
    }

    #[test]
    fn a_file_that_starts_over_waits_where_it_was() {
        let mut combined = Combined::default();
        let reports =
            run(&mut combined, &[direct(50, 100), direct(10, 100), direct(40, 100), direct(70, 100), finished(100)]);
        assert_eq!(reports, [(50, Some(100)), (70, Some(100)), (100, Some(100))]);
    }

    #[test]
    fn wavering_estimates_of_a_stream_do_not_turn_progress_back() {
        let mut combined = Combined::default();
        assert!(!combined.begun());
        let reports = run(
            &mut combined,
            &[fragment(827, 9097, 0), fragment(2000, 10_000, 1), fragment(3000, 30_000, 2), finished(20_000)],
        );
        assert_eq!(reports, [(827, None), (2000, Some(10_000)), (3000, Some(15_000)), (20_000, Some(20_000))]);
        assert!(combined.begun());
    }

    #[test]
    fn fragments_tell_the_whole_where_nobody_estimates_it() {
        let step = FileProgress { estimated_bytes: None, ..fragment(300, 0, 3) };
        assert_eq!(file_total(&step), Some(1000));
    }

    #[test]
    fn enormous_numbers_do_no_harm() {
        let mut combined = Combined::default();
        combined.plan(vec![size(Some(u64::MAX), Some(u64::MAX)); 3], Some(u64::MAX));
        run(&mut combined, &[direct(1 << 53, 1), direct(1 << 53, 1 << 53), finished(1 << 53), direct(1, 1 << 53)]);
    }
}
