//! The page `docs/bench.md`: what people wrote about the comparison, and below a mark the last report.

use crate::shell::{Failed, root};

/// What is below this line is replaced.
const MARK: &str = "<!-- The rest is written by `cargo xtask bench --write-docs`. -->\n";

/// The page with this report.
pub(crate) fn page(report: &str) -> Result<String, Failed> {
    with_report(&std::fs::read_to_string(root().join("docs/bench.md"))?, report)
}

fn with_report(page: &str, report: &str) -> Result<String, Failed> {
    let Some((written, _)) = page.split_once(MARK) else {
        return Err(Failed(format!("docs/bench.md has no line '{}'", MARK.trim())));
    };
    Ok(format!("{written}{MARK}\n![Server CPU per request, as a multiple of the best peer's](bench.svg)\n\n{report}"))
}

#[cfg(test)]
mod tests {
    use super::{MARK, page, with_report};

    #[test]
    fn only_the_report_is_replaced() {
        let once = with_report(&format!("# Bench\n\n{MARK}old"), "first\n").unwrap();
        let twice = with_report(&once, "second\n").unwrap();
        assert!(once.starts_with("# Bench\n\n") && once.ends_with("(bench.svg)\n\nfirst\n"), "{once}");
        assert_eq!(twice, once.replace("first", "second"));
        assert!(with_report("# Bench\n", "lost").is_err());
    }

    #[test]
    fn the_page_has_its_mark() {
        assert!(page("").is_ok());
    }
}
