//! Converts `google.protobuf.Timestamp` and `Duration`, in microseconds rounded down.

use crate::domain::{
    Error,
    api_key::{GRACE_DEFAULT, GRACE_MAX},
    time::{Span, Timestamp},
};

const MICROS_PER_SECOND: i64 = 1_000_000;
const NANOS_PER_MICRO: i32 = 1_000;
const NANOS_MAX: i32 = 999_999_999;
/// The years 1 to 9999, as the protobuf type allows.
const TIMESTAMP_SECONDS_MIN: i64 = -62_135_596_800;
const TIMESTAMP_SECONDS_MAX: i64 = 253_402_300_799;
/// About 10,000 years, as the protobuf type allows.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;

/// Parses a timestamp, rounding down to microseconds.
///
/// # Errors
/// [`Error::Invalid`] naming `field` outside the years 1 to 9999, or with nanoseconds out of range.
pub fn timestamp(field: &str, value: prost_types::Timestamp) -> Result<Timestamp, Error> {
    if !(TIMESTAMP_SECONDS_MIN..=TIMESTAMP_SECONDS_MAX).contains(&value.seconds) {
        return Err(Error::field(field, "must lie in the years 1 to 9999"));
    }
    if !(0..=NANOS_MAX).contains(&value.nanos) {
        return Err(Error::field(field, "must have nanos between 0 and 999,999,999"));
    }
    Ok(Timestamp::from_micros(value.seconds * MICROS_PER_SECOND + i64::from(value.nanos / NANOS_PER_MICRO)))
}

/// Parses a duration of zero or more, rounding down to microseconds.
///
/// # Errors
/// [`Error::Invalid`] naming `field` if it is negative or not a valid protobuf Duration.
pub fn span(field: &str, value: prost_types::Duration) -> Result<Span, Error> {
    let nanos_ok = (-NANOS_MAX..=NANOS_MAX).contains(&value.nanos);
    let signs_agree = value.seconds == 0 || value.nanos == 0 || (value.seconds < 0) == (value.nanos < 0);
    if !nanos_ok || !signs_agree || value.seconds.checked_abs().is_none_or(|abs| abs > DURATION_SECONDS_MAX) {
        return Err(Error::field(field, "is not a valid duration: see google.protobuf.Duration"));
    }
    if value.seconds < 0 || value.nanos < 0 {
        return Err(Error::field(field, "must not be negative"));
    }
    let micros = value.seconds * MICROS_PER_SECOND + i64::from(value.nanos / NANOS_PER_MICRO);
    Span::from_micros(micros).ok_or_else(|| Error::field(field, "must not be negative"))
}

/// Parses the lifetime of a new key: at least a microsecond.
///
/// # Errors
/// [`Error::Invalid`] naming `field`.
pub fn ttl(field: &str, value: prost_types::Duration) -> Result<Span, Error> {
    let span = span(field, value)?;
    if span == Span::ZERO { Err(Error::field(field, "must be at least one microsecond")) } else { Ok(span) }
}

/// Parses a rotation's grace period: 0-60 minutes, 30 if absent (K8).
///
/// # Errors
/// [`Error::Invalid`] naming `field`.
pub fn grace(field: &str, value: Option<prost_types::Duration>) -> Result<Span, Error> {
    let grace = value.map_or(Ok(GRACE_DEFAULT), |value| span(field, value))?;
    if grace > GRACE_MAX { Err(Error::field(field, "must be at most 60 minutes")) } else { Ok(grace) }
}

/// Converts a timestamp to its message.
#[must_use]
pub fn to_timestamp(value: Timestamp) -> prost_types::Timestamp {
    let micros = value.as_micros();
    let sub_second = i32::try_from(micros.rem_euclid(MICROS_PER_SECOND)).expect("below a million");
    prost_types::Timestamp { seconds: micros.div_euclid(MICROS_PER_SECOND), nanos: sub_second * NANOS_PER_MICRO }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn moment(seconds: i64, nanos: i32) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos }
    }

    fn lasting(seconds: i64, nanos: i32) -> prost_types::Duration {
        prost_types::Duration { seconds, nanos }
    }

    #[test]
    fn moments_are_rounded_down_to_microseconds_also_before_1970() {
        assert_eq!(timestamp("t", moment(1, 1_999)), Ok(Timestamp::from_micros(1_000_001)));
        assert_eq!(timestamp("t", moment(-1, 999_999_999)), Ok(Timestamp::from_micros(-1)));
        assert_eq!(timestamp("t", moment(TIMESTAMP_SECONDS_MAX, NANOS_MAX)), Ok(Timestamp::MAX));
        assert!(timestamp("t", moment(TIMESTAMP_SECONDS_MIN, 0)).is_ok());
    }

    #[test]
    fn moments_out_of_range_name_the_field() {
        for bad in [
            moment(0, -1),
            moment(0, NANOS_MAX + 1),
            moment(TIMESTAMP_SECONDS_MAX + 1, 0),
            moment(TIMESTAMP_SECONDS_MIN - 1, 0),
            moment(i64::MAX, 0),
            moment(i64::MIN, 0),
        ] {
            let error = timestamp("api_key.expire_time", bad).expect_err("out of range");
            assert!(error.to_string().contains("api_key.expire_time"), "{error}");
        }
    }

    #[test]
    fn spans_are_never_negative_and_always_valid() {
        assert_eq!(span("d", lasting(0, 999)), Ok(Span::ZERO));
        assert_eq!(span("d", lasting(1, 1_000)), Ok(Span::from_micros(1_000_001).expect("positive")));
        assert!(span("d", lasting(DURATION_SECONDS_MAX, NANOS_MAX)).is_ok());
        for bad in [
            lasting(-1, 0),
            lasting(0, -1),
            lasting(0, -1_000),
            lasting(1, -1),
            lasting(-1, 1),
            lasting(0, NANOS_MAX + 1),
            lasting(0, i32::MIN),
            lasting(DURATION_SECONDS_MAX + 1, 0),
            lasting(i64::MAX, 0),
            lasting(i64::MIN, 0),
        ] {
            assert!(span("d", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn k7_a_ttl_is_at_least_a_microsecond() {
        assert!(ttl("api_key.ttl", lasting(0, 1_000)).is_ok());
        assert!(ttl("api_key.ttl", lasting(0, 999)).is_err());
        assert!(ttl("api_key.ttl", lasting(0, 0)).is_err());
    }

    #[test]
    fn k8_absent_grace_is_half_an_hour_and_zero_is_none() {
        assert_eq!(grace("grace_period", None), Ok(GRACE_DEFAULT));
        assert_eq!(grace("grace_period", Some(lasting(0, 0))), Ok(Span::ZERO));
        assert_eq!(grace("grace_period", Some(lasting(3_600, 0))), Ok(GRACE_MAX));
        assert!(grace("grace_period", Some(lasting(3_600, 1_000))).is_err());
        assert!(grace("grace_period", Some(lasting(-1, 0))).is_err());
    }

    proptest! {
        #[test]
        fn a_moment_reads_back_as_printed(micros in -62_135_596_800_000_000..=253_402_300_799_999_999_i64) {
            let value = Timestamp::from_micros(micros);
            prop_assert_eq!(timestamp("t", to_timestamp(value)), Ok(value));
        }
    }
}
