//! The report in Markdown: how the edge stands in each row, every server's numbers, who could not take part, and where and when
//! this was measured.

use crate::bench::Machine;
use crate::bench::peers::Peer;
use crate::bench::rounds::{Measured, Measurement, Round};
use crate::bench::stats::{median, ratio_to_best};

impl Measured {
    /// What a server's number is as a multiple of the best peer's of the same round; the edge is no peer.
    pub(crate) fn ratio(&self, of: Peer, number: fn(&Round) -> f64) -> Option<f64> {
        let numbers = |server: &Measurement| server.rounds.iter().map(number).collect::<Vec<_>>();
        let own = numbers(self.servers.iter().find(|server| server.peer == of)?);
        let peers: Vec<_> = self.servers.iter().filter(|server| server.peer != Peer::Littoral).map(numbers).collect();
        ratio_to_best(&own, &peers.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// The peer with the smallest median.
    fn best(&self) -> Option<Peer> {
        let peers = self.servers.iter().filter(|server| server.peer != Peer::Littoral);
        let costs = peers.filter_map(|server| Some((server.peer, server.median(|round| round.cpu_us)?)));
        costs.min_by(|one, other| one.1.total_cmp(&other.1)).map(|(peer, _)| peer)
    }
}

impl Measurement {
    pub(crate) fn median(&self, number: fn(&Round) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(number))
    }
}

/// The whole report.
pub(crate) fn report(rows: &[Measured], failures: &[(String, String)], machine: &Machine) -> String {
    let mut text = format!("{machine}\n");
    text.push_str(&summary(rows));
    text.push_str(&details(rows));
    text.push_str(&idle(rows));
    for row in rows {
        for (peer, why) in &row.absent {
            text.push_str(&format!("- {} is not in `{}`: {why}.\n", peer.title(), row.row.name));
        }
    }
    for (row, why) in failures {
        text.push_str(&format!("- FAILED `{row}`: {why}\n"));
    }
    text
}

/// One line for each row: the edge against the best peer.
fn summary(rows: &[Measured]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.rate.is_some()) {
        let (cpu, p99) = (|round: &Round| round.cpu_us, |round: &Round| round.p99_us as f64);
        let own = row.servers.iter().find(|server| server.peer == Peer::Littoral);
        let number = own.and_then(|own| own.median(cpu));
        text.push_str(&format!(
            "| `{}` | {} | {} | {} | {} | {} | {} |\n",
            row.row.name,
            row.row.title,
            if row.row.workers == 1 { "1" } else { "2" },
            number.map_or_else(dash, time),
            row.best().map_or_else(dash, |peer| peer.title().to_owned()),
            row.ratio(Peer::Littoral, cpu).map_or_else(dash, |ratio| format!("**{ratio:.2}**")),
            row.ratio(Peer::Littoral, p99).map_or_else(dash, |ratio| format!("{ratio:.2}")),
        ));
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "| row | what | cores | Littoral: server CPU a request | best peer | CPU: × the best peer | p99: × the best peer |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n{text}\n"
    )
}

/// One line for each row and server.
fn details(rows: &[Measured]) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| row.rate.is_some()) {
        for server in &row.servers {
            let cpu = |round: &Round| round.cpu_us;
            let number = |number: fn(&Round) -> f64| server.median(number).unwrap_or_default();
            text.push_str(&format!(
                "| `{}` | {} | {} | {} | {:.0} | {:.0} % | {} | {} | {} |\n",
                row.row.name,
                server.peer.title(),
                time(number(cpu)),
                row.ratio(server.peer, cpu).map_or_else(dash, |ratio| format!("{ratio:.2}")),
                number(|round| round.requests_per_s),
                number(|round| 100.0 * round.busy),
                time(number(|round| round.p50_us as f64)),
                time(number(|round| round.p99_us as f64)),
                mib(server.memory_bytes),
            ));
        }
    }
    if text.is_empty() {
        return text;
    }
    let paces: Vec<String> = rows.iter().filter_map(|row| Some(format!("`{}` {}", row.row.name, row.rate?))).collect();
    format!(
        "| row | server | CPU a request | × the best peer | requests/s | busy | p50 | p99 | memory |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n{text}\n\
         p50 and p99 at the same pace for all, half of what the slowest can do, in requests/s: {}.\n\n",
        paces.join(", ")
    )
}

/// What idle connections cost.
fn idle(rows: &[Measured]) -> String {
    let mut text = String::new();
    for row in rows {
        for server in &row.servers {
            if let Some((connections, bytes)) = server.idle {
                let (name, title) = (row.row.name, server.peer.title());
                text.push_str(&format!("| `{name}` | {title} | {connections} | {bytes:.0} |\n"));
            }
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("| row | server | idle connections | bytes each |\n| --- | --- | --- | --- |\n{text}\n")
}

fn dash() -> String {
    "–".to_owned()
}

/// Microseconds with three digits, or as many as there are before the point.
fn time(us: f64) -> String {
    let (number, unit) = if us < 1_000.0 { (us, "µs") } else { (us / 1_000.0, "ms") };
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$} {unit}")
}

fn mib(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}
