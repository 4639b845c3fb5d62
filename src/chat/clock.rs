//! `strftime` in UTC for chat templates that print today's date. No time zones, no locales.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// The present time by Python's `strftime` directives; one that is not known is printed as it stands.
pub(crate) fn strftime_now(format: &str) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    strftime(seconds, format)
}

fn strftime(seconds: u64, format: &str) -> String {
    let mut text = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        match (character, characters.clone().next()) {
            ('%', Some(directive)) => {
                characters.next();
                push_directive(&mut text, seconds, directive);
            }
            _ => text.push(character),
        }
    }
    text
}

fn push_directive(text: &mut String, seconds: u64, directive: char) {
    let days = seconds / 86_400;
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let month_name = MONTHS[month as usize - 1];
    // 1 January 1970 was a Thursday.
    let day_name = DAYS[((days + 4) % 7) as usize];
    let written = match directive {
        'Y' => write!(text, "{year:04}"),
        'y' => write!(text, "{:02}", year % 100),
        'm' => write!(text, "{month:02}"),
        'd' => write!(text, "{day:02}"),
        'e' => write!(text, "{day:2}"),
        'H' => write!(text, "{hour:02}"),
        'M' => write!(text, "{minute:02}"),
        'S' => write!(text, "{second:02}"),
        'B' => write!(text, "{month_name}"),
        'b' => write!(text, "{}", &month_name[..3]),
        'A' => write!(text, "{day_name}"),
        'a' => write!(text, "{}", &day_name[..3]),
        'F' => write!(text, "{year:04}-{month:02}-{day:02}"),
        'T' => write!(text, "{hour:02}:{minute:02}:{second:02}"),
        '%' => write!(text, "%"),
        other => write!(text, "%{other}"),
    };
    written.expect("writing into a string cannot fail");
}

/// Days since 1 January 1970 → year, month (1-12), day (1-31), after Howard Hinnant's `civil_from_days`.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(strftime(0, "%A %d %B %Y %T"), "Thursday 01 January 1970 00:00:00");
        assert_eq!(strftime(951_782_400, "%F %a"), "2000-02-29 Tue");
        assert_eq!(strftime(1_735_689_599, "%d %b %y %H:%M:%S %e"), "31 Dec 24 23:59:59 31");
    }

    #[test]
    fn unknown_directives_stand_as_they_are() {
        assert_eq!(strftime(0, "100%% %Q %"), "100% %Q %");
    }
}
