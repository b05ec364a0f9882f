//! Times as containerd writes and reads them.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;

/// `time` as `2026-11-22T19:09:21Z`. Times before 1970 are 1970.
pub(super) fn rfc3339(time: SystemTime) -> String {
    let timestamp = Timestamp::from(time);
    timestamp.to_string()
}

/// containerd leaves a time out, or sends the zero of Go's clock, for "never".
pub(super) fn from_timestamp(timestamp: Option<&Timestamp>) -> Option<SystemTime> {
    let timestamp = timestamp.filter(|timestamp| timestamp.seconds > 0)?;
    let seconds = u64::try_from(timestamp.seconds).ok()?;
    let nanos = u32::try_from(timestamp.nanos).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use prost_types::Timestamp;

    use super::{from_timestamp, rfc3339};

    #[test]
    fn a_time_is_written_in_utc() {
        assert_eq!(
            rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_374_561)),
            "2026-11-22T19:09:21Z"
        );
    }

    #[test]
    fn go_s_zero_time_is_no_time() {
        assert_eq!(from_timestamp(None), None);
        assert_eq!(from_timestamp(Some(&Timestamp { seconds: -62_135_596_800, nanos: 0 })), None);
        let time = Timestamp { seconds: 5, nanos: 7 };
        assert_eq!(from_timestamp(Some(&time)), Some(SystemTime::UNIX_EPOCH + Duration::new(5, 7)));
    }
}
