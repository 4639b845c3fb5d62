//! How numbers are written for people, on screen and in the report.

/// A value in a few characters: `0.0123`, `4.57`, `12.3k`, `2.0e-4`.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == 0.0 => "0".to_owned(),
        _ if size >= 999.5e6 => format!("{:.1}G", value / 1e9),
        _ if size >= 999.5e3 => format!("{:.1}M", value / 1e6),
        _ if size >= 9_999.5 => format!("{:.1}k", value / 1e3),
        _ if size >= 99.95 => format!("{value:.0}"),
        _ if size >= 9.995 => format!("{value:.1}"),
        _ if size >= 0.9995 => format!("{value:.2}"),
        _ if size >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// A share of one as `87.5 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Megabytes (10⁶ bytes) as `338 MB` or `1.23 GB`.
pub(super) fn memory(megabytes: f64) -> String {
    if megabytes < 999.5 { format!("{megabytes:.0} MB") } else { format!("{:.2} GB", megabytes / 1e3) }
}

/// Seconds as `h:mm:ss`.
pub(super) fn clock(seconds: f64) -> String {
    // A negative or unknown time is shown as none.
    let seconds = seconds.round() as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_size_take_a_few_characters() {
        let values = [0.0, 2e-4, 0.0123, 0.99961, 4.567, 99.96, 431.2, 9_999.4, 12_345.0, 1.25e6, 3e9, -0.5];
        let shown = ["0", "2.0e-4", "0.012", "1.00", "4.57", "100", "431", "9999", "12.3k", "1.2M", "3.0G", "-0.500"];
        assert_eq!(values.map(short), shown);
    }

    #[test]
    fn memory_has_its_unit() {
        assert_eq!([338.2, 999.4, 1234.5].map(memory), ["338 MB", "999 MB", "1.23 GB"]);
    }

    #[test]
    fn a_time_is_shown_in_hours() {
        assert_eq!([0.4, 59.6, 3_725.0, f64::NAN].map(clock), ["0:00:00", "0:01:00", "1:02:05", "0:00:00"]);
    }
}
