//! `--timeout`, for every verb: a duration, or a bare number whose unit is plain from its size. `--jobs` too. Pure.

use std::time::Duration;

/// How long a call or a check may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// As given.
    Given(Duration),
    /// A bare number, taken as milliseconds, which is worth a note.
    Millis(u64),
}

impl Limit {
    pub(crate) fn time(self) -> Duration {
        match self {
            Self::Given(time) => time,
            Self::Millis(millis) => Duration::from_millis(millis),
        }
    }

    /// What is to be said about a bare number.
    pub(crate) fn note(self) -> Option<String> {
        let Self::Millis(millis) = self else { return None };
        let time = humantime::format_duration(self.time());
        Some(format!("note: --timeout {millis} is taken as milliseconds ({time}); write {millis}ms to say so"))
    }
}

/// Reads a time.
pub(crate) fn parse(text: &str) -> Result<Limit, String> {
    let limit = match text.parse::<u64>() {
        Ok(seconds @ ..1_000) => Limit::Given(Duration::from_secs(seconds)),
        Ok(number @ 1_000..10_000) => {
            return Err(format!("{number} of what? write {number}s for seconds or {number}ms for milliseconds"));
        }
        Ok(millis) => Limit::Millis(millis),
        Err(_) => Limit::Given(
            humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 30s, 500ms or 2m"))?,
        ),
    };
    if limit.time().is_zero() {
        return Err("a call needs some time: write it as 30s, 500ms or 2m".to_owned());
    }
    Ok(limit)
}

/// Reads how many scenarios run at a time.
pub(crate) fn jobs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|jobs| *jobs > 0).ok_or_else(|| "expected a number of scenarios, 1 or more".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_one_job_runs() {
        assert_eq!(jobs("8"), Ok(8));
        for text in ["0", "-1", "", "many"] {
            assert!(jobs(text).unwrap_err().contains("1 or more"), "{text}");
        }
    }

    fn time(text: &str) -> Duration {
        parse(text).unwrap().time()
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(time("30s"), Duration::from_secs(30));
        assert_eq!(time("500ms"), Duration::from_millis(500));
        assert_eq!(time("2m"), Duration::from_secs(120));
    }

    #[test]
    fn a_small_bare_number_is_seconds() {
        assert_eq!(time("1"), Duration::from_secs(1));
        assert_eq!(time("999"), Duration::from_secs(999));
        assert_eq!(parse("999").unwrap().note(), None);
    }

    #[test]
    fn a_big_bare_number_is_milliseconds_with_a_note() {
        assert_eq!(time("10000"), Duration::from_secs(10));
        assert!(parse("120000").unwrap().note().unwrap().contains("milliseconds (2m)"));
    }

    #[test]
    fn between_them_the_unit_is_asked_for() {
        for text in ["1000", "9999"] {
            assert!(parse(text).unwrap_err().contains("of what?"), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["0", "0ms", "", "soon", "-1", "1.5"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
