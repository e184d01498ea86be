//! Numbers, sizes, times and events as people read them. JSON output never passes through here.

use std::path::Path;
use std::time::Duration;

use api::{Change, Event, PurgeTargets};

const SECOND_MS: u64 = 1_000;
const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 86_400;

/// Bytes in powers of 1,024 with one decimal: `512 B`, `12.4 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = "KiB";
    for larger in ["MiB", "GiB", "TiB", "PiB", "EiB"] {
        // 1023.95 and more would be rounded to 1024.0 of the smaller unit.
        if value < 1_023.95 {
            break;
        }
        value /= 1_024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

/// Bytes per second over `elapsed`: `15.5 MiB/s`.
pub fn rate(bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    format!("{}/s", size((bytes as f64 / seconds) as u64))
}

/// A stretch of time: `8 ms`, `0.8 s`, `2 min 5 s`, `3 h 12 min`.
pub fn elapsed(time: Duration) -> String {
    let seconds = (time.as_millis() + 500) / 1_000;
    let (minute, hour) = (u128::from(MINUTE_S), u128::from(HOUR_S));
    if time < Duration::from_millis(100) {
        format!("{} ms", time.as_millis())
    } else if time < Duration::from_millis(59_950) {
        format!("{:.1} s", time.as_secs_f64())
    } else if seconds < hour {
        format!("{} min {} s", seconds / minute, seconds % minute)
    } else {
        format!("{} h {} min", seconds / hour, seconds % hour / minute)
    }
}

/// A number of things: `1 file`, `3 files`.
pub fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// Milliseconds since the Unix epoch as date and time of day in UTC: `2026-02-28 09:05:00Z`.
pub fn time(ms: u64) -> String {
    let seconds = ms / SECOND_MS;
    let (year, month, day) = civil(seconds / DAY_S);
    let of_day = seconds % DAY_S;
    let (hour, minute, second) = (of_day / HOUR_S, of_day % HOUR_S / MINUTE_S, of_day % MINUTE_S);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years are taken to begin in March, so
/// that the leap day is the last of its year; 400 of them have 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let of_era = days % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + days / 146_097 * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// The name of a local file for a message: what is not UTF-8 replaced, control characters escaped, so that a file's name
/// cannot steer the terminal.
pub fn file_name(path: &Path) -> String {
    plain(&path.to_string_lossy())
}

/// Text with its control characters escaped.
pub fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, c| {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

/// Lines of text with their control characters escaped, each ended.
pub fn plain_lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{}\n", plain(line.trim_end()))).collect()
}

/// An event on one line: number, time, kind and what it is about.
pub fn event(event: &Event) -> String {
    let about = match &event.change {
        Change::FileUpdated(file) => {
            format!("{}:{} version {}, {}", file.zone, file.path, file.version, size(file.size))
        }
        Change::FileMoved { file, old_path } => format!("{}:{old_path} -> {}", file.zone, file.path),
        Change::FileDeleted(file) => format!("{}:{}", file.zone, file.path),
        Change::Purge(targets) => purge(targets),
        Change::Config { generation } => format!("generation {generation}"),
    };
    format!("{}  {}  {:<12}  {about}", event.seq, time(event.at_ms), event.change.kind())
}

/// Everything that a purge names. Taken apart whole, so that nothing new is left out unseen.
fn purge(targets: &PurgeTargets) -> String {
    let PurgeTargets { urls, pages, ids, prefixes, tags, hosts, zones, soft } = targets;
    let mut named: Vec<String> = urls.iter().map(|url| format!("{}:{}", url.zone, url.path)).collect();
    named.extend(pages.iter().map(|page| format!("{}:{}", page.zone, plain(&page.url))));
    named.extend(ids.iter().map(|id| format!("id {id}")));
    named.extend(prefixes.iter().map(|p| format!("{}:{}*", p.zone, plain(&p.prefix))));
    named.extend(tags.iter().map(|t| match &t.zone {
        Some(zone) => format!("{zone} tag {}", t.tag),
        None => format!("tag {}", t.tag),
    }));
    named.extend(hosts.iter().map(|host| format!("{} host {}", host.zone, plain(&host.host))));
    named.extend(zones.iter().map(|zone| format!("all of {zone}")));
    format!("{}{}", if *soft { "soft: " } else { "" }, named.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (13_002_342, "12.4 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), shown, "{bytes}");
        }
        assert_eq!(rate(10 << 20, Duration::from_millis(500)), "20.0 MiB/s");
        assert_eq!(rate(0, Duration::ZERO), "0 B/s");
    }

    #[test]
    fn stretches_of_time() {
        for (ms, shown) in [
            (0, "0 ms"),
            (99, "99 ms"),
            (100, "0.1 s"),
            (840, "0.8 s"),
            (59_949, "59.9 s"),
            (59_960, "1 min 0 s"),
            (60_000, "1 min 0 s"),
            (125_000, "2 min 5 s"),
            (11_520_000, "3 h 12 min"),
        ] {
            assert_eq!(elapsed(Duration::from_millis(ms)), shown, "{ms}");
        }
    }

    #[test]
    fn dates() {
        for (seconds, shown) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_767_225_599, "2025-12-31 23:59:59Z"),
            (1_767_225_600, "2026-01-01 00:00:00Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(seconds * 1_000 + 999), shown, "{seconds}");
        }
    }

    #[test]
    fn counts_and_names() {
        assert_eq!(count(0, "file"), "0 files");
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(file_name(Path::new("a\u{1b}[2J\n.txt")), "a\\u{1b}[2J\\n.txt");
        assert_eq!(plain("größe"), "größe");
    }

    #[test]
    fn every_event_of_the_contract_is_one_line() {
        let lines = include_str!("../../../api/fixtures/events_v1.jsonl").trim_end();
        let shown: Vec<String> =
            lines.lines().map(|line| event(&serde_json::from_str(line).expect("an event"))).collect();
        let time = "1970-01-01 00:00:01Z";
        assert_eq!(
            shown,
            [
                format!("1  {time}  file_updated  files:a/b.txt version 2, 5 B"),
                format!("2  {time}  file_moved    files:old -> a/b.txt"),
                format!("3  {time}  file_deleted  files:a/b.txt"),
                format!("4  {time}  purge         soft: tag t"),
                format!("5  {time}  config        generation 7"),
            ]
        );
    }

    #[test]
    fn a_purge_shows_everything_it_names() {
        let targets = serde_json::json!({
            "urls": [{"zone": "files", "path": "a"}],
            "pages": [{"zone": "shop", "url": "shop.example/a?b=1"}],
            "prefixes": [{"zone": "shop", "prefix": "/img/"}],
            "tags": [{"zone": "shop", "tag": "t"}],
            "hosts": [{"zone": "shop", "host": "shop.example"}],
            "zones": ["docs"]
        });
        assert_eq!(
            purge(&serde_json::from_value(targets).expect("targets")),
            "files:a, shop:shop.example/a?b=1, shop:/img/*, shop tag t, shop host shop.example, all of docs"
        );
    }
}
