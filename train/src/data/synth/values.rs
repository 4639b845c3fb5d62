//! Values of parameters: the JSON and the words that say it. Knows no function and no sentence.

use super::dice::Dice;
use super::tables::tables;
use serde_json::{Value as Json, json};
use std::borrow::Cow;

/// What a parameter holds.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) enum Kind {
    Person,
    Who,
    Company,
    Title,
    Word,
    Made,
    Id(Cow<'static, str>),
    Code,
    Email,
    Phone,
    Street,
    Path,
    Url,
    Host,
    Version,
    Plate,
    Expression,
    Place,
    /// A date: `YYYY-MM-DD` or as people say it; settled for each function by [`Kind::settle`].
    Date,
    IsoDate,
    SpokenDate,
    Time,
    Int(i64, i64),
    Num(f64, f64),
    Money,
    Enum(Vec<&'static str>),
    Bool,
    /// An array of words from a pool.
    List(&'static str),
    /// A word from a pool.
    Pool(&'static str),
}

/// One value: the JSON, and how the request says it.
#[derive(Debug, Clone)]
pub(in crate::data) struct Value {
    pub(in crate::data) json: Json,
    pub(super) said: String,
    /// Free text of several words: needs quotes or the end of the sentence.
    pub(super) free: bool,
}

impl Kind {
    /// `int(1,5)`, `enum(a,b)`, `id(INV)`, `list(pool)`, a built-in name or the name of a pool.
    pub(in crate::data) fn parse(text: &'static str) -> Option<Self> {
        if let Some((head, rest)) = text.split_once('(') {
            let inner = rest.strip_suffix(')')?;
            let (low, high) = inner.split_once(',').unwrap_or((inner, ""));
            return match head {
                "int" => Some(Self::Int(low.parse().ok()?, high.parse().ok()?)),
                "num" => Some(Self::Num(low.parse().ok()?, high.parse().ok()?)),
                "enum" => Some(Self::Enum(inner.split(',').collect())),
                "id" => Some(Self::Id(Cow::Borrowed(inner))),
                "list" => Some(Self::List(inner)),
                _ => None,
            };
        }
        Some(match text {
            "person" => Self::Person,
            "who" => Self::Who,
            "company" => Self::Company,
            "title" => Self::Title,
            "word" => Self::Word,
            "made" => Self::Made,
            "code" => Self::Code,
            "email" => Self::Email,
            "phone" => Self::Phone,
            "street" => Self::Street,
            "path" => Self::Path,
            "url" => Self::Url,
            "hostname" => Self::Host,
            "version" => Self::Version,
            "plate" => Self::Plate,
            "expr" => Self::Expression,
            "landmarkcity" => Self::Place,
            "date" => Self::Date,
            "isodate" => Self::IsoDate,
            "time" => Self::Time,
            "money" => Self::Money,
            "bool" => Self::Bool,
            pool => Self::Pool(pool),
        })
    }

    /// Fixes what one function's parameter may vary in.
    pub(super) fn settle(&self, dice: &mut Dice) -> Self {
        match self {
            Self::Date if dice.chance(0.7) => Self::IsoDate,
            Self::Date => Self::SpokenDate,
            other => other.clone(),
        }
    }

    /// The JSON Schema of the values, without a description.
    pub(super) fn schema(&self, dice: &mut Dice) -> serde_json::Map<String, Json> {
        let schema = match self {
            Self::Int(low, high) if dice.chance(0.1) => json!({"type": "integer", "minimum": low, "maximum": high}),
            Self::Int(..) => json!({"type": "integer"}),
            Self::Num(..) | Self::Money => json!({"type": "number"}),
            Self::Bool => json!({"type": "boolean"}),
            Self::Enum(items) => json!({"type": "string", "enum": items}),
            Self::List(_) => json!({"type": "array", "items": {"type": "string"}}),
            Self::IsoDate if dice.chance(0.2) => json!({"type": "string", "format": "date"}),
            _ => json!({"type": "string"}),
        };
        match schema {
            Json::Object(map) => map,
            _ => serde_json::Map::new(),
        }
    }

    /// Whether "A and B" can stand where one value stands.
    pub(super) fn can_repeat(&self) -> bool {
        matches!(
            self,
            Self::Person | Self::Company | Self::Id(_) | Self::Code | Self::Word | Self::Email | Self::Pool(_)
        ) || matches!(self, Self::Title | Self::Who | Self::Url | Self::Place | Self::IsoDate)
    }

    /// Draws a value. `lower` writes names in lower case, as hurried people do.
    pub(in crate::data) fn draw(&self, dice: &mut Dice, lower: bool) -> Value {
        match self {
            Self::Int(low, high) => integer(dice, *low, *high),
            Self::Num(low, high) => number(dice, *low, *high),
            Self::Money => money(dice),
            Self::Bool => plain_json(json!(dice.chance(0.5))),
            Self::List(pool) => list(dice, pool),
            Self::Enum(items) => string(dice.pick(items).to_owned()),
            Self::Title => title(dice, lower),
            Self::Pool(pool) => pooled(dice, pool, lower),
            Self::Person | Self::Company | Self::Place | Self::Who => {
                let text = self.text(dice);
                string(if lower { text.to_lowercase() } else { text })
            }
            _ => string(self.text(dice)),
        }
    }

    /// Words and codes that are one piece of text.
    fn text(&self, dice: &mut Dice) -> String {
        match self {
            Self::Person => person(dice),
            Self::Who => match dice.below(3) {
                0 => Self::Email.text(dice),
                1 => word_of(dice, "first"),
                _ => person(dice),
            },
            Self::Company => company(dice),
            Self::Word => match dice.below(3) {
                0 => word_of(dice, "thing"),
                1 => word_of(dice, "codename"),
                _ => made(dice, false),
            },
            Self::Place if dice.chance(0.4) => word_of(dice, "landmark"),
            Self::Place => word_of(dice, "city"),
            Self::Made => made(dice, false),
            Self::Id(prefix) => id(dice, prefix),
            Self::Code => format!("{}{}", letters(dice, 2), dice.between(10, 9999)),
            Self::Email => email(dice),
            Self::Phone => {
                format!("+{} {} {}", dice.between(1, 99), dice.between(100, 999), dice.between(10_000, 999_999))
            }
            Self::Street => format!("{} {}", dice.between(1, 300), word_of(dice, "street")),
            Self::Path => path(dice),
            Self::Url => url(dice),
            Self::Host => host(dice),
            Self::Version => format!("{}.{}.{}", dice.between(0, 9), dice.between(0, 20), dice.between(0, 30)),
            Self::Plate => format!("{}-{}", letters(dice, 3), dice.between(100, 9999)),
            Self::Expression => expression(dice),
            Self::IsoDate | Self::Date => iso_date(dice),
            Self::SpokenDate => spoken_date(dice),
            Self::Time => time(dice),
            _ => String::new(),
        }
    }
}

fn string(text: String) -> Value {
    Value { json: Json::String(text.clone()), said: text, free: false }
}

fn plain_json(json: Json) -> Value {
    Value { said: json.to_string(), json, free: false }
}

fn word_of(dice: &mut Dice, pool: &str) -> String {
    dice.pick(&tables().pool(pool).1).to_owned()
}

pub(in crate::data) fn capitalise(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn made(dice: &mut Dice, capital: bool) -> String {
    let syllables = 2 + dice.below(2);
    let word = dice.word(syllables);
    if capital { capitalise(&word) } else { word }
}

fn integer(dice: &mut Dice, low: i64, high: i64) -> Value {
    const WORDS: [&str; 13] =
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"];
    let n = dice.between(low, high);
    let word = usize::try_from(n).ok().and_then(|n| WORDS.get(n)).filter(|_| n > 1);
    let said = match word {
        Some(word) if dice.chance(0.12) => (*word).to_owned(),
        _ => n.to_string(),
    };
    Value { json: json!(n), said, free: false }
}

/// A number of hundredths, written without needless zeros.
fn hundredths(n: i64) -> Value {
    if n % 100 == 0 {
        return plain_json(json!(n / 100));
    }
    let whole = format!("{}.{:02}", n / 100, n % 100);
    let said = whole.trim_end_matches('0').to_owned();
    let json = said.parse::<f64>().map_or(Json::Null, |x| json!(x));
    Value { json, said, free: false }
}

fn number(dice: &mut Dice, low: f64, high: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "table bounds are small")]
    let n = dice.between((low * 10.0) as i64, (high * 10.0) as i64) * 10;
    if dice.chance(0.15) { hundredths((n + dice.between(0, 9)).max(1)) } else { hundredths(n.max(10)) }
}

fn money(dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 => hundredths(dice.between(100, 99_999)),
        1 => hundredths(dice.between(1, 99) * 1000),
        _ => hundredths(dice.between(2, 2500) * 100),
    }
}

/// "milk", "milk and eggs", "milk, eggs and bread".
pub(in crate::data) fn join(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

fn list(dice: &mut Dice, pool: &str) -> Value {
    let count = 1 + dice.weighted(&[0.2, 0.4, 0.3, 0.1]);
    let mut items: Vec<String> = Vec::new();
    while items.len() < count {
        let item = word_of(dice, pool);
        if !items.contains(&item) {
            items.push(item);
        }
    }
    Value { said: join(&items), json: json!(items), free: false }
}

fn pooled(dice: &mut Dice, pool: &str, lower: bool) -> Value {
    let (open, items) = tables().pool(pool);
    let mut text = if *open && dice.chance(0.15) { made(dice, true) } else { dice.pick(items).to_owned() };
    if lower && !matches!(pool, "currency" | "ticker" | "airport") {
        text = text.to_lowercase();
    }
    let free = text.split(' ').count() > 2;
    Value { free, ..string(text) }
}

fn title(dice: &mut Dice, lower: bool) -> Value {
    let text = match dice.below(7) {
        0 => format!("{} {}", word_of(dice, "adjective"), word_of(dice, "thing")),
        1 => format!("{} the {}", word_of(dice, "doing"), word_of(dice, "thing")),
        2 => format!("The {} {}", capitalise(&word_of(dice, "adjective")), capitalise(&word_of(dice, "thing"))),
        3 => format!("{} {}", capitalise(&word_of(dice, "thing")), dice.between(2, 99)),
        4 => format!("{} {} {}", word_of(dice, "doing"), word_of(dice, "thing"), word_of(dice, "ending")),
        5 => format!("{} {}", made(dice, true), capitalise(&word_of(dice, "thing"))),
        _ => made(dice, true),
    };
    let free = text.contains(' ');
    Value { free, ..string(if lower { text.to_lowercase() } else { text }) }
}

fn person(dice: &mut Dice) -> String {
    match dice.below(8) {
        0 => made(dice, true),
        1 => format!("{} {}", word_of(dice, "first"), made(dice, true)),
        2 | 3 => word_of(dice, "first"),
        4 => format!("{} {}", dice.pick(&["Mr.", "Ms.", "Dr."]), word_of(dice, "last")),
        _ => format!("{} {}", word_of(dice, "first"), word_of(dice, "last")),
    }
}

fn company(dice: &mut Dice) -> String {
    let name = if dice.chance(0.4) { made(dice, true) } else { word_of(dice, "colname") };
    if dice.chance(0.6) { format!("{name} {}", word_of(dice, "suffix")) } else { name }
}

fn letters(dice: &mut Dice, count: usize) -> String {
    (0..count).map(|_| char::from(b'A' + u8::try_from(dice.below(26)).unwrap_or(0))).collect()
}

fn id(dice: &mut Dice, prefix: &str) -> String {
    match dice.below(6) {
        0 => dice.between(100, 99_999).to_string(),
        1 => format!("{}{}", prefix, dice.between(10, 9999)),
        2 => format!("{}_{}", prefix.to_lowercase(), dice.between(10, 9999)),
        _ => format!("{prefix}-{}", dice.between(10, 99_999)),
    }
}

fn email(dice: &mut Dice) -> String {
    let domain = word_of(dice, "domainname");
    let first = word_of(dice, "first").to_lowercase();
    match dice.below(3) {
        0 => format!("{first}.{}@{domain}", word_of(dice, "last").to_lowercase()),
        1 => format!("{}@{domain}", made(dice, false)),
        _ => format!("{first}{}@{domain}", dice.between(1, 99)),
    }
}

fn path(dice: &mut Dice) -> String {
    let name = word_of(dice, "thing");
    let extension = word_of(dice, "format");
    match dice.below(3) {
        0 => format!("{name}.{extension}"),
        1 => format!("/home/{}/{name}.{extension}", made(dice, false)),
        _ => format!("{}/{name}_{}.{extension}", made(dice, false), dice.between(1, 99)),
    }
}

fn url(dice: &mut Dice) -> String {
    let site = if dice.chance(0.5) { word_of(dice, "domainname") } else { format!("{}.com", made(dice, false)) };
    match dice.below(3) {
        0 => format!("https://{site}"),
        1 => format!("https://{site}/{}", word_of(dice, "thing")),
        _ => site,
    }
}

fn host(dice: &mut Dice) -> String {
    match dice.below(3) {
        0 => format!("web-{:02}", dice.between(1, 40)),
        1 => format!("db{}.{}", dice.between(1, 9), word_of(dice, "domainname")),
        _ => format!("{}-{}", word_of(dice, "codename"), dice.between(1, 20)),
    }
}

fn expression(dice: &mut Dice) -> String {
    let (a, b) = (dice.between(2, 900), dice.between(2, 99));
    let op = dice.pick(&["+", "-", "*", "/"]);
    match dice.below(4) {
        0 => format!("{a}{op}{b}"),
        1 => format!("({a} + {b}) {op} {}", dice.between(2, 20)),
        _ => format!("{a} {op} {b}"),
    }
}

fn iso_date(dice: &mut Dice) -> String {
    format!("{}-{:02}-{:02}", dice.between(2018, 2030), dice.between(1, 12), dice.between(1, 28))
}

fn spoken_date(dice: &mut Dice) -> String {
    match dice.below(6) {
        0 => "tomorrow".to_owned(),
        1 => format!("next {}", word_of(dice, "weekday")),
        2 => format!("{} {}", word_of(dice, "month"), dice.between(1, 28)),
        3 => format!("{} {}", dice.between(1, 28), word_of(dice, "month")),
        4 => format!("{} {}, {}", word_of(dice, "month"), dice.between(1, 28), dice.between(2020, 2030)),
        _ => word_of(dice, "weekday"),
    }
}

fn time(dice: &mut Dice) -> String {
    let (hour, minute) = (dice.between(0, 23), dice.between(0, 11) * 5);
    match dice.below(4) {
        0 => format!("{} {}", dice.between(1, 12), dice.pick(&["am", "pm"])),
        1 => format!("{}:{:02} {}", dice.between(1, 12), minute, dice.pick(&["am", "pm"])),
        _ => format!("{hour:02}:{minute:02}"),
    }
}
