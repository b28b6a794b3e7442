//! Lines of a process's output, of bounded length.

use std::io;

use millrace_domain::limits::TOOL_LINE_BYTES_MAX;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Reads lines that end in `\n`. It skips empty lines, truncates long ones, and replaces what is not UTF-8.
///
/// A `\r` ends no line: yt-dlp writes some errors as `ERROR: \r[download] …`.
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    line_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader: BufReader::new(reader), line: Vec::new(), line_bytes_max: TOOL_LINE_BYTES_MAX }
    }

    /// The next line; `None` at the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            let chunk = self.reader.fill_buf().await?;
            let at_end = chunk.is_empty();
            let line_end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..line_end.unwrap_or(chunk.len())];
            let room = self.line_bytes_max - self.line.len();
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            let used = part.len() + usize::from(line_end.is_some());
            self.reader.consume(used);
            if (at_end || line_end.is_some()) && !self.line.is_empty() {
                let line = String::from_utf8_lossy(&self.line).into_owned();
                self.line.clear();
                return Ok(Some(line));
            }
            if at_end {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], line_bytes_max: usize) -> Vec<String> {
        let mut lines = Lines { line_bytes_max, ..Lines::new(text) };
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    #[tokio::test]
    async fn lines_end_at_a_newline_and_the_last_one_at_the_end() {
        assert_eq!(lines(b"one\n\nERROR: \rtwo\nthr\xffee", 100).await, ["one", "ERROR: \rtwo", "thr\u{fffd}ee"]);
        assert!(lines(b"", 100).await.is_empty());
    }

    #[tokio::test]
    async fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let text = [vec![b'x'; 50_000], b"\nshort\n".to_vec(), vec![b'y'; 11]].concat();
        assert_eq!(lines(&text, 10).await, ["x".repeat(10), "short".into(), "y".repeat(10)]);
    }
}
