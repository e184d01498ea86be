//! The report in Markdown: how the edge stands in each row, every server's numbers, who could not take part, and where and when
//! this was measured.

use std::time::Duration;

use crate::bench::Machine;
use crate::bench::peers::Peer;
use crate::bench::rounds::{Measured, Measurement, Round};
use crate::bench::stalls::Stalls;
use crate::bench::stats::{median, ratio_to_best};

impl Measured {
    /// What a server's number is as a multiple of the best peer's of the same round; the edge is no peer.
    pub(crate) fn ratio(&self, of: Peer, number: fn(&Round) -> f64) -> Option<f64> {
        let numbers = |server: &Measurement| server.rounds.iter().map(number).collect::<Vec<_>>();
        let own = numbers(self.servers.iter().find(|server| server.peer == of)?);
        let peers: Vec<_> = self.servers.iter().filter(|server| !server.peer.is_own()).map(numbers).collect();
        ratio_to_best(&own, &peers.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// What a server's p99 is as a multiple of the best peer's, each in the round that was quietest for it.
    fn p99_ratio(&self, of: Peer) -> Option<f64> {
        let own = self.servers.iter().find(|server| server.peer == of)?.quietest_p99()?;
        let peers = self.servers.iter().filter(|server| !server.peer.is_own());
        let best = peers.filter_map(Measurement::quietest_p99).min_by(f64::total_cmp)?;
        Some(own / best)
    }

    /// The peer with the smallest median.
    fn best(&self) -> Option<Peer> {
        let peers = self.servers.iter().filter(|server| !server.peer.is_own());
        let costs = peers.filter_map(|server| Some((server.peer, server.median(|round| round.cpu_us)?)));
        costs.min_by(|one, other| one.1.total_cmp(&other.1)).map(|(peer, _)| peer)
    }
}

impl Measurement {
    pub(crate) fn median(&self, number: fn(&Round) -> f64) -> Option<f64> {
        median(self.rounds.iter().map(number))
    }

    /// The lowest p99 of all rounds: where the machine itself stands still now and then, that only ever adds to it.
    fn quietest_p99(&self) -> Option<f64> {
        self.rounds.iter().map(|round| round.p99_us as f64).filter(|p99| *p99 > 0.0).min_by(f64::total_cmp)
    }
}

/// The whole report.
pub(crate) fn report(rows: &[Measured], failures: &[(String, String)], machine: &Machine) -> String {
    let mut text = format!("{machine}\n");
    text.push_str(&summary(rows));
    text.push_str(&details(rows));
    text.push_str(&idle(rows));
    text.push_str(&stalls(rows));
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
        let cpu = |round: &Round| round.cpu_us;
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
            row.p99_ratio(Peer::Littoral).map_or_else(dash, |ratio| format!("{ratio:.2}")),
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
                "| `{}` | {} | {} | {} | {:.0} | {:.0} % | {} | {} | {} | {} |\n",
                row.row.name,
                server.peer.title(),
                time(number(cpu)),
                row.ratio(server.peer, cpu).map_or_else(dash, |ratio| format!("{ratio:.2}")),
                number(|round| round.requests_per_s),
                number(|round| 100.0 * round.busy),
                time(number(|round| round.p50_us as f64)),
                time(server.quietest_p99().unwrap_or_default()),
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
        "| row | server | CPU a request | × the best peer | requests/s | busy | p50 | p99, lowest | p99, median | memory |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n{text}\n\
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

/// How much of it was the machine.
fn stalls(rows: &[Measured]) -> String {
    let all = rows.iter().map(|row| row.stalls).fold(Stalls::default(), Stalls::and);
    let us = |time: Duration| time.as_micros() as f64;
    format!(
        "While nothing ran, before the rows, the servers' first core was watched for {} and stood still for {} of it, counting every \
         time of 100 µs or more; the longest was {}.\n\n",
        time(us(all.watched)),
        time(us(all.stalled)),
        time(us(all.longest)),
    )
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

#[cfg(test)]
mod tests {
    use super::{Measured, Measurement, Peer, Round, Stalls, details, idle, stalls, summary, time};
    use crate::bench::rows::Row;
    use std::time::Duration;

    fn server(peer: Peer, costs: [f64; 3]) -> Measurement {
        let round = |cpu_us| Round { cpu_us, requests_per_s: 1e6 / cpu_us, busy: 0.95, p50_us: 100, p99_us: 2_000 };
        Measurement { peer, rounds: costs.map(round).into(), memory_bytes: 3 << 20, idle: None }
    }

    fn row(name: &str, servers: Vec<Measurement>, rate: Option<u64>) -> Measured {
        let row = Row::ALL.into_iter().find(|row| row.name == name).unwrap();
        Measured { row, servers, absent: Vec::new(), rate, stalls: Stalls::default() }
    }

    #[test]
    fn a_row() {
        let servers = vec![
            server(Peer::Littoral, [8.0, 9.0, 30.0]),
            server(Peer::Nginx, [20.0, 10.0, 20.0]),
            server(Peer::Haproxy, [16.0, 12.0, 40.0]),
        ];
        let rows = [row("1k", servers, Some(500))];
        // 8/16, 9/10 and 30/20.
        let line = "| `1k` | 1 KiB, HTTP/1.1 | 1 | 9.00 µs | HAProxy | **0.90** | 1.00 |\n";
        assert!(summary(&rows).contains(line), "{}", summary(&rows));
        let line = "| `1k` | nginx | 20.0 µs | 1.00 | 50000 | 95 % | 100 µs | 2.00 ms | 2.00 ms | 3 MiB |\n";
        assert!(details(&rows).contains(line), "{}", details(&rows));
        assert!(details(&rows).contains("`1k` 500."));
        assert_eq!(idle(&rows), "");
    }

    #[test]
    fn without_peers_there_is_no_ratio() {
        let rows = [row("64k-2", vec![server(Peer::Littoral, [1.0, 1.0, 1.0])], Some(1))];
        assert!(summary(&rows).contains("| 2 | 1.00 µs | – | – | – |"), "{}", summary(&rows));
    }

    #[test]
    fn idle_connections_have_a_table_of_their_own() {
        let mut kept = server(Peer::Varnish, [1.0; 3]);
        kept.idle = Some((17_000, 5_383.4));
        let rows = [row("idle", vec![kept], None)];
        assert!(idle(&rows).contains("| `idle` | Varnish | 17000 | 5383 |"), "{}", idle(&rows));
        assert_eq!((summary(&rows), details(&rows)), (String::new(), String::new()));
    }

    #[test]
    fn times_are_those_of_the_quietest_round() {
        let mut servers = vec![server(Peer::Littoral, [1.0; 3]), server(Peer::Nginx, [1.0; 3])];
        servers[0].rounds[0].p99_us = 3_000;
        servers[1].rounds[1].p99_us = 1_600;
        let rows = [row("1k", servers, Some(500))];
        assert!(summary(&rows).contains("| nginx | **1.00** | 1.25 |"), "{}", summary(&rows));
        assert!(details(&rows).contains("| 100 µs | 1.60 ms | 2.00 ms |"), "{}", details(&rows));
    }

    #[test]
    fn stalls_are_added_up() {
        let ms = Duration::from_millis;
        let mut rows = [row("1k", Vec::new(), None), row("64k", Vec::new(), None)];
        rows[0].stalls = Stalls { watched: ms(1_000), stalled: ms(3), longest: ms(2) };
        rows[1].stalls = Stalls { watched: ms(1_000), stalled: ms(6), longest: ms(1) };
        let text = stalls(&rows);
        assert!(
            text.contains("for 2000 ms and stood still for 9.00 ms") && text.contains("longest was 2.00 ms"),
            "{text}"
        );
    }

    #[test]
    fn times() {
        for (us, expected) in
            [(4.427, "4.43 µs"), (12.34, "12.3 µs"), (999.4, "999 µs"), (1_000.0, "1.00 ms"), (46_332.0, "46.3 ms")]
        {
            assert_eq!(time(us), expected);
        }
    }
}
