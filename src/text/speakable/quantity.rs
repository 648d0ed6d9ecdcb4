//! English quantities: units, fractions, ranges, dates, clock times and amounts of money as words.
//!
//! Each function takes one word, or a number and the word after it, and answers None where it is not what it reads.

/// Symbol, one, several. Letters count: "mb" is no megabyte. What is also a word ("in") or a name ("A") is not here.
const UNITS: &[(&str, &str, &str)] = &[
    ("mg", "milligram", "milligrams"),
    ("g", "gram", "grams"),
    ("kg", "kilogram", "kilograms"),
    ("lb", "pound", "pounds"),
    ("lbs", "pound", "pounds"),
    ("oz", "ounce", "ounces"),
    ("nm", "nanometer", "nanometers"),
    ("mm", "millimeter", "millimeters"),
    ("cm", "centimeter", "centimeters"),
    ("m", "meter", "meters"),
    ("km", "kilometer", "kilometers"),
    ("ft", "foot", "feet"),
    ("yd", "yard", "yards"),
    ("mi", "mile", "miles"),
    ("m²", "square meter", "square meters"),
    ("m2", "square meter", "square meters"),
    ("km²", "square kilometer", "square kilometers"),
    ("km2", "square kilometer", "square kilometers"),
    ("m³", "cubic meter", "cubic meters"),
    ("m3", "cubic meter", "cubic meters"),
    ("ml", "milliliter", "milliliters"),
    ("mL", "milliliter", "milliliters"),
    ("l", "liter", "liters"),
    ("L", "liter", "liters"),
    ("km/h", "kilometer per hour", "kilometers per hour"),
    ("kph", "kilometer per hour", "kilometers per hour"),
    ("mph", "mile per hour", "miles per hour"),
    ("m/s", "meter per second", "meters per second"),
    ("°C", "degree Celsius", "degrees Celsius"),
    ("°F", "degree Fahrenheit", "degrees Fahrenheit"),
    ("°", "degree", "degrees"),
    ("ms", "millisecond", "milliseconds"),
    ("sec", "second", "seconds"),
    ("secs", "second", "seconds"),
    ("min", "minute", "minutes"),
    ("mins", "minute", "minutes"),
    ("h", "hour", "hours"),
    ("hr", "hour", "hours"),
    ("hrs", "hour", "hours"),
    ("KB", "kilobyte", "kilobytes"),
    ("kB", "kilobyte", "kilobytes"),
    ("MB", "megabyte", "megabytes"),
    ("GB", "gigabyte", "gigabytes"),
    ("TB", "terabyte", "terabytes"),
    ("kbps", "kilobit per second", "kilobits per second"),
    ("Mbps", "megabit per second", "megabits per second"),
    ("Gbps", "gigabit per second", "gigabits per second"),
    ("Hz", "hertz", "hertz"),
    ("kHz", "kilohertz", "kilohertz"),
    ("MHz", "megahertz", "megahertz"),
    ("GHz", "gigahertz", "gigahertz"),
    ("W", "watt", "watts"),
    ("kW", "kilowatt", "kilowatts"),
    ("MW", "megawatt", "megawatts"),
    ("kWh", "kilowatt hour", "kilowatt hours"),
    ("V", "volt", "volts"),
    ("dB", "decibel", "decibels"),
    ("px", "pixel", "pixels"),
    ("fps", "frame per second", "frames per second"),
    ("rpm", "revolution per minute", "revolutions per minute"),
    ("bpm", "beat per minute", "beats per minute"),
    ("kcal", "kilocalorie", "kilocalories"),
    ("cal", "calorie", "calories"),
    ("kJ", "kilojoule", "kilojoules"),
    ("hPa", "hectopascal", "hectopascals"),
];

const SCALES: &[(&str, &str)] = &[
    ("k", " thousand"),
    ("K", " thousand"),
    ("m", " million"),
    ("M", " million"),
    ("bn", " billion"),
    ("b", " billion"),
    ("B", " billion"),
    ("T", " trillion"),
];

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 6] = ["", "", "twenty", "thirty", "forty", "fifty"];

const FRACTIONS: &[(&str, char, &str)] = &[
    ("1/2", '½', "one half"),
    ("1/3", '⅓', "one third"),
    ("2/3", '⅔', "two thirds"),
    ("1/4", '¼', "one quarter"),
    ("3/4", '¾', "three quarters"),
];

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

/// "a.m" as it is left of "a.m.", "pm" and so on.
pub(super) fn noon(lower: &str) -> Option<&'static str> {
    match lower {
        "am" | "a.m" => Some("AM"),
        "pm" | "p.m" => Some("PM"),
        _ => None,
    }
}

pub(super) fn number_character(character: char) -> bool {
    character.is_ascii_digit() || ".,-–−/½⅓⅔¼¾".contains(character)
}

pub(super) fn is_number(text: &str) -> bool {
    text.starts_with(|first: char| number_character(first) && !matches!(first, '.' | ',' | '/'))
        && text.ends_with(|last: char| last.is_ascii_digit() || "½⅓⅔¼¾".contains(last))
        && text.chars().all(number_character)
}

/// Fractions and ranges as words, other numbers as they are.
pub(super) fn number_words(number: &str) -> String {
    if let Some(words) = fraction(number) {
        return words.to_owned();
    }
    let last = number.chars().next_back().unwrap_or_default();
    let whole = number.trim_end_matches(last);
    if let Some((_, _, words)) = FRACTIONS.iter().find(|(_, sign, _)| *sign == last) {
        return format!("{whole} and {words}");
    }
    // Not a telephone number, whose parts are longer or differ in length.
    let is_range = |from: &str, to: &str| {
        is_whole(from) && is_whole(to) && matches!((from.len(), to.len()), (1, 1 | 2) | (2, 2 | 3) | (3, 3) | (4, 4))
    };
    match number.split_once(['-', '–']) {
        Some((from, to)) if is_range(from, to) => format!("{from} to {to}"),
        _ => number.to_owned(),
    }
}

fn is_whole(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn fraction(number: &str) -> Option<&'static str> {
    let is_it = |(text, sign, _): &&(&str, char, &str)| *text == number || number.chars().eq([*sign]);
    FRACTIONS.iter().find(is_it).map(|(_, _, words)| *words)
}

/// "2024-05-17".
pub(super) fn date(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let shape = (year.len(), month.len(), day.len()) == (4, 2, 2) && parts.next().is_none();
    if !shape || ![year, month, day].into_iter().all(is_whole) {
        return None;
    }
    let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
    let day = day.parse::<u8>().ok().filter(|day| (1..=31).contains(day))?;
    Some(format!("{month} {day}, {year}"))
}

/// "25" and "kg" as "25 kilograms", "7:30" and "pm" are not for here.
pub(super) fn quantity(number: &str, unit: &str) -> Option<String> {
    if !is_number(number) {
        return None;
    }
    let (_, one, several) = UNITS.iter().find(|(symbol, _, _)| *symbol == unit)?;
    let is_one = matches!(number, "1" | "-1") || fraction(number).is_some();
    Some(format!("{} {}", number_words(number), if is_one { one } else { several }))
}

/// "7:30", "7:30pm".
pub(super) fn clock(text: &str, before_noon: bool) -> Option<String> {
    let (hour, rest) = text.split_once(':')?;
    let digits = rest.len() - rest.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (minute, suffix) = rest.split_at(digits);
    let noon = if suffix.is_empty() { None } else { Some(noon(&suffix.to_lowercase())?) };
    if !(1..=2).contains(&hour.len()) || minute.len() != 2 {
        return None;
    }
    let hour = hour.parse::<usize>().ok().filter(|hour| *hour <= 24)?;
    let minute = minute.parse::<usize>().ok().filter(|minute| *minute < 60)?;
    let spoken = match (hour, minute) {
        (0 | 24, 0) => "midnight".to_owned(),
        (_, 0) if noon.is_some() || before_noon => below_sixty(hour),
        (1..=12, 0) => format!("{} o'clock", below_sixty(hour)),
        (_, 0) => format!("{} hundred", below_sixty(hour)),
        (_, 1..=9) => format!("{} oh {}", below_sixty(hour), below_sixty(minute)),
        _ => format!("{} {}", below_sixty(hour), below_sixty(minute)),
    };
    Some(noon.map_or(spoken.clone(), |noon| format!("{spoken} {noon}")))
}

fn below_sixty(number: usize) -> String {
    match number {
        0..20 => SMALL[number].to_owned(),
        _ if number.is_multiple_of(10) => TENS[number / 10].to_owned(),
        _ => format!("{} {}", TENS[number / 10], SMALL[number % 10]),
    }
}

/// "$5M", "€20k", "¥500".
pub(super) fn money(text: &str) -> Option<String> {
    let currency = text.chars().next().filter(|first| "$€£¥₹".contains(*first))?;
    let amount = &text[currency.len_utf8()..];
    let end =
        amount.len() - amount.trim_start_matches(|digit: char| digit.is_ascii_digit() || ".,".contains(digit)).len();
    let scale = SCALES.iter().find(|(short, _)| *short == &amount[end..]).map(|(_, scale)| *scale);
    // The plain amounts that the next step reads.
    let scale = if amount[end..].is_empty() && "¥₹".contains(currency) { Some("") } else { scale }?;
    let name = match currency {
        '$' => "dollars",
        '€' => "euros",
        '£' => "pounds",
        '¥' => "yen",
        _ => "rupees",
    };
    (end > 0).then(|| format!("{}{scale} {name}", &amount[..end]))
}

/// "#5", "~20", "±3".
pub(super) fn prefixed(text: &str) -> Option<String> {
    let first = text.chars().next()?;
    let word = match first {
        '#' => "number",
        '~' | '≈' => "about",
        '±' => "plus or minus",
        '<' => "less than",
        '>' => "more than",
        '≤' => "at most",
        '≥' => "at least",
        _ => return None,
    };
    let rest = &text[first.len_utf8()..];
    is_number(rest).then(|| format!("{word} {rest}"))
}
