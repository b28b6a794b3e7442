//! Numbers that describe a video, in the output of the downloader and of ffprobe.

/// The common name of a picture's size: its smaller side, as in `1080p`, in portrait and in landscape.
pub(crate) fn quality(width: Option<u64>, height: Option<u64>) -> Option<String> {
    let height = height.filter(|height| *height > 0)?;
    let lines = width.filter(|width| *width > 0).map_or(height, |width| width.min(height));
    Some(format!("{lines}p"))
}

/// The nearest whole number; `None` if the number is negative or too large for a count.
pub(crate) fn whole(number: f64) -> Option<u64> {
    // Up to 2^53 every count has its own double.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range is checked")]
    (0.0..=9_007_199_254_740_992.0).contains(&number).then(|| number.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upright_video_has_the_quality_that_people_call_it() {
        assert_eq!(quality(Some(1080), Some(1920)).as_deref(), Some("1080p"));
        assert_eq!(quality(None, Some(720)).as_deref(), Some("720p"));
        assert_eq!(quality(Some(720), None), None);
        assert_eq!(quality(Some(0), Some(0)), None);
    }
}
