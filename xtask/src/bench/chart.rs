//! The chart: for each row, a bar for each server, as long as its CPU time is a multiple of the best peer's. It is readable on
//! light and on dark pages.

use crate::bench::peers::Peer;
use crate::bench::rounds::Measured;

/// Measures of the drawing, in its units.
const WIDTH: usize = 760;
const NAMES_WIDTH: usize = 150;
const BARS_WIDTH: usize = 540;
const BAR_HEIGHT: usize = 14;
const TITLE_HEIGHT: usize = 20;
const ROW_GAP: usize = 12;
const LINE_HEIGHT: usize = 15;
/// Characters in a line of small print.
const LINE_CHARS: usize = 125;
/// Longer bars are cut off, and say so.
const RATIO_MAX: f64 = 4.0;

const TITLE: &str = "Server CPU per request, as a multiple of the best peer's: shorter is better";
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#1f2328}.title{font-size:15px;font-weight:600}.small{font-size:11px;fill:#59636e}\
                     .own{fill:#0969da}.peer{fill:#afb8c1}.best{stroke:#cf222e;stroke-width:1.5}.end{text-anchor:end}.strong{font-weight:600}\
                     @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.small{fill:#9198a1}.own{fill:#4493f8}.peer{fill:#545d68}\
                     .best{stroke:#f85149}}";

/// A bar.
struct Bar {
    server: Peer,
    ratio: f64,
}

/// The chart of all rows that have ratios, as SVG. `about` says where and when.
pub(crate) fn svg(rows: &[Measured], about: &str) -> String {
    let bars = |row: &Measured| {
        let ratio = |peer| Some(Bar { server: peer, ratio: row.ratio(peer, |round| round.cpu_us)? });
        Peer::ALL.into_iter().filter_map(ratio).collect::<Vec<_>>()
    };
    let title = |row: &Measured| {
        if row.row.workers == 1 { row.row.title.to_owned() } else { format!("{}, 2 cores", row.row.title) }
    };
    let rows: Vec<_> = rows.iter().map(|row| (title(row), bars(row))).filter(|(_, bars)| !bars.is_empty()).collect();
    draw(&rows, about)
}

fn draw(rows: &[(String, Vec<Bar>)], about: &str) -> String {
    let (mut body, mut y) = (String::new(), 22);
    for line in lines(about) {
        y += LINE_HEIGHT;
        body.push_str(&format!("<text x=\"0\" y=\"{y}\" class=\"small\">{}</text>\n", escaped(&line)));
    }
    y += ROW_GAP;
    let (top, best) = (y, NAMES_WIDTH as f64 + scale());
    for (title, bars) in rows {
        y += TITLE_HEIGHT;
        body.push_str(&format!("<text x=\"0\" y=\"{}\" class=\"strong\">{}</text>\n", y - 6, escaped(title)));
        for bar in bars {
            let class = if bar.server.is_own() { "own" } else { "peer" };
            let (length, more) = (bar.ratio.min(RATIO_MAX) * scale(), if bar.ratio > RATIO_MAX { " →" } else { "" });
            let (text_y, number_x) = (y + 10, NAMES_WIDTH as f64 + length + 5.0);
            body.push_str(&format!(
                "<text x=\"{}\" y=\"{text_y}\" class=\"small end\">{}</text>\
                 <rect x=\"{NAMES_WIDTH}\" y=\"{y}\" width=\"{length:.1}\" height=\"{}\" class=\"{class}\"/>\
                 <text x=\"{number_x:.1}\" y=\"{text_y}\" class=\"small\">{:.2}{more}</text>\n",
                NAMES_WIDTH - 8,
                escaped(bar.server.title()),
                BAR_HEIGHT - 2,
                bar.ratio,
            ));
            y += BAR_HEIGHT;
        }
        y += ROW_GAP;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" role=\"img\">\n\
         <title>{TITLE}</title>\n<style>{STYLE}</style>\n<text x=\"0\" y=\"18\" class=\"title\">{TITLE}</text>\n{body}\
         <text x=\"{:.1}\" y=\"{}\" class=\"small\">best peer of each round</text>\n\
         <line x1=\"{best:.1}\" x2=\"{best:.1}\" y1=\"{top}\" y2=\"{y}\" class=\"best\"/>\n</svg>\n",
        best + 5.0,
        top + 8,
    )
}

/// A text in lines that are not too long, broken where it has commas.
fn lines(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for part in text.trim().split_inclusive(", ") {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.chars().count() <= LINE_CHARS => line.push_str(part),
            _ => lines.push(part.to_owned()),
        }
    }
    lines
}

/// The length of a bar that is as good as the best peer.
fn scale() -> f64 {
    BARS_WIDTH as f64 / RATIO_MAX
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{Bar, LINE_CHARS, Peer, draw, lines};

    #[test]
    fn a_chart() {
        let bar = |server, ratio| Bar { server, ratio };
        let rows = [
            ("a < b".to_owned(), vec![bar(Peer::Littoral, 0.5), bar(Peer::Haproxy, 1.0)]),
            ("c".to_owned(), vec![bar(Peer::Varnish, 17.25)]),
        ];
        let svg = draw(&rows, "machine & versions");
        for part in [
            "a &lt; b",
            "machine &amp; versions",
            "width=\"67.5\" height=\"12\" class=\"own\"",
            "width=\"135.0\" height=\"12\" class=\"peer\"",
            "width=\"540.0\"",
            "17.25 →",
            "x1=\"285.0\" x2=\"285.0\"",
            "prefers-color-scheme:dark",
        ] {
            assert!(svg.contains(part), "{part} is not in\n{svg}");
        }
        assert_eq!(svg.matches("<rect").count(), 3);
        assert_eq!(svg.matches("<text").count(), svg.matches("</text>").count());
    }

    #[test]
    fn small_print_is_broken_at_commas() {
        let text = ["x".repeat(LINE_CHARS - 2), "y".to_owned(), "z".repeat(2 * LINE_CHARS)].join(", ");
        let lengths: Vec<_> = lines(&text).iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_CHARS, 3, 2 * LINE_CHARS]);
    }
}
