//! An event's time of publication and its number within its job, which every system carries as `downloadedBytes`.

use rustix::time::{ClockId, clock_gettime};

/// Low bits of the encoded mark that hold the number. The whole stays under 2^53, so that JavaScript keeps every digit.
const NUMBER_BITS: u32 = 20;
/// The text before the mark in a frame and in an event.
const FIELD: &[u8] = b"\"downloadedBytes\":";

/// Microseconds of the machine's monotonic clock, the same in every process.
pub fn now_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000
}

/// When an event was published, and its number within its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Microseconds since the epoch of the measurement.
    pub at_us: u64,
    /// Rising by one with each event of the job.
    pub number: u64,
}

impl Mark {
    /// The mark of an event that is published now.
    pub fn now(epoch_us: u64, number: u64) -> Self {
        Self { at_us: now_us() - epoch_us, number: number & ((1 << NUMBER_BITS) - 1) }
    }

    /// Encodes the mark as one number.
    pub fn encode(self) -> u64 {
        self.at_us << NUMBER_BITS | self.number
    }

    /// Decodes what [`Mark::encode`] returned.
    pub fn decode(encoded: u64) -> Self {
        Self { at_us: encoded >> NUMBER_BITS, number: encoded & ((1 << NUMBER_BITS) - 1) }
    }

    /// Finds the mark in a message; `None` if it has none.
    ///
    /// `hint` is the mark's position in the last message: messages of one kind differ little, so most need no search.
    pub fn find(message: &[u8], hint: &mut usize) -> Option<Self> {
        let at = match message.get(*hint..).is_some_and(|rest| rest.starts_with(FIELD)) {
            true => *hint,
            false => memchr::memmem::find(message, FIELD)?,
        };
        *hint = at;
        let digits = message[at + FIELD.len()..].iter().take_while(|byte| byte.is_ascii_digit());
        Some(Self::decode(digits.fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_where_it_was_and_where_it_was_not() {
        let mark = Mark { at_us: 8_000_000_123, number: 77 };
        let mut hint = 0;
        for head in ["{\"a\":1,", "{\"a\":1,", "{\"a\":100,"] {
            let text = format!("{head}\"downloadedBytes\":{},\"b\":2}}", mark.encode());
            assert_eq!(Mark::find(text.as_bytes(), &mut hint), Some(mark), "{text}");
        }
        assert_eq!(Mark::find(b"{}", &mut hint), None);
        assert!(mark.encode() < 1 << 53);
    }
}
