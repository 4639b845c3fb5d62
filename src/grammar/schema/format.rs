//! String and number formats, each as a subset that every validator of the format accepts.

/// A host name's label, without `--` (reserved for encoded names).
macro_rules! label {
    () => {
        "[A-Za-z0-9]{1,30}(?:-[A-Za-z0-9]{1,15}){0,2}"
    };
}

/// Four-digit years from 1000; 29 February in leap years.
macro_rules! date {
    () => {
        concat!(
            "(?:[1-9][0-9]{3}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)",
            "|02-(?:0[1-9]|1[0-9]|2[0-8]))",
            "|(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)-02-29)"
        )
    };
}

/// No leap seconds, which are valid in two minutes of a day only.
macro_rules! time {
    () => {
        concat!(
            r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?",
            "(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
        )
    };
}

macro_rules! octet {
    () => {
        "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    };
}

macro_rules! path_character {
    () => {
        "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
    };
}

const DATE: &str = concat!("^", date!(), "$");
const TIME: &str = concat!("^", time!(), "$");
const DATE_TIME: &str = concat!("^", date!(), "T", time!(), "$");
const DURATION: &str = concat!(
    "^P(?:(?:[0-9]{1,9}Y(?:[0-9]{1,9}M(?:[0-9]{1,9}D)?)?|[0-9]{1,9}M(?:[0-9]{1,9}D)?|[0-9]{1,9}D)",
    "|T(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S)|[0-9]{1,9}W)$"
);
const UUID: &str = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$";
const IPV4: &str = concat!("^(?:", octet!(), r"\.){3}", octet!(), "$");
const IPV6: &str = concat!(
    "^(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|(?:[0-9A-Fa-f]{1,4}:){1,6}:[0-9A-Fa-f]{1,4}",
    "|::(?:[0-9A-Fa-f]{1,4}:){0,5}[0-9A-Fa-f]{1,4}|::)$"
);
const EMAIL: &str = concat!(
    r"^[A-Za-z0-9][A-Za-z0-9_+-]{0,30}(?:\.[A-Za-z0-9_+-]{1,15}){0,2}@(?:",
    label!(),
    r"\.){1,3}[A-Za-z]{2,12}$"
);
const HOSTNAME: &str = concat!("^(?:", label!(), r"\.){0,3}[A-Za-z]{1,20}$");
const URI: &str = concat!(
    "^[A-Za-z][A-Za-z0-9+.-]{0,15}://(?:",
    label!(),
    r"\.){0,3}[A-Za-z]{1,20}(?::[1-9][0-9]{0,3})?(?:/",
    path_character!(),
    r"*)*(?:\?",
    path_character!(),
    "*)?(?:#",
    path_character!(),
    "*)?$"
);

/// The pattern that stands for a string format; `None` for formats that say nothing about strings.
pub(super) fn string_pattern(format: &str) -> Option<&'static str> {
    Some(match format {
        "date" => DATE,
        "time" => TIME,
        "date-time" => DATE_TIME,
        "duration" => DURATION,
        "uuid" => UUID,
        "ipv4" => IPV4,
        "ipv6" => IPV6,
        "email" => EMAIL,
        "hostname" => HOSTNAME,
        "uri" => URI,
        _ => return None,
    })
}

/// The range of a numeric format; infinite for those that do not narrow a JSON number.
pub(super) fn number_range(format: &str) -> Option<(f64, f64)> {
    Some(match format {
        "int32" => (f64::from(i32::MIN), f64::from(i32::MAX)),
        "uint32" => (0.0, f64::from(u32::MAX)),
        "uint64" => (0.0, f64::INFINITY),
        "int64" | "float" | "double" => (f64::NEG_INFINITY, f64::INFINITY),
        _ => return None,
    })
}

/// Refuses formats that are not enforced; the error completes the sentence "`format` …".
pub(super) fn check(format: &str) -> Result<(), String> {
    if format == "password" || string_pattern(format).is_some() || number_range(format).is_some() {
        return Ok(());
    }
    let shown: String = format.chars().take(40).collect();
    Err(format!(
        "`{shown}` cannot be enforced; supported are date, time, date-time, duration, uuid, ipv4, ipv6, email, hostname, uri, \
         int32, int64, uint32, uint64, float, double, password"
    ))
}
