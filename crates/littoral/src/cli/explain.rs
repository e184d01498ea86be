//! `explain`: shows what an edge would do with a request, and why.
//!
//! The token is shown only to an edge that is named with `--edge` or stands on this machine: a URL may lead anywhere.

use std::net::IpAddr;

use api::explain::EXPLAIN_PATH;
use api::{ExplainRequest, Explanation, Problem, TokenSecret};
use clap::Args;
use http::{Request, StatusCode, Uri, header};
use net::{Body, ClientLimits, HttpClient};

use crate::cli::error::CliError;
use crate::cli::globals::Globals;
use crate::cli::human;
use crate::cli::output::{Out, json_line};

/// Longest explanation that is read, in bytes.
const MAX_EXPLANATION_BYTES: usize = 1 << 20;

const EXAMPLES: &str = "\
Nothing is fetched or changed: the edge takes the same decisions as when it serves, and stops before it acts.

Examples:
  littoral explain http://127.0.0.1:8080/
  littoral explain https://shop.example/cart -H 'Cookie: session=1' --edge http://10.0.0.7:8610
  littoral explain http://127.0.0.1:8080/img/a.png -X PURGE --client-ip 203.0.113.9 -o json";

/// The arguments of `explain`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// The URL that somebody would ask for
    url: String,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    method: String,
    /// A header of the request; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = field)]
    headers: Vec<(String, String)>,
    /// Address that the request would come from [default: this machine's]
    #[arg(long, value_name = "IP")]
    client_ip: Option<IpAddr>,
    /// The edge to ask, like http://10.0.0.7:8610 [default: the host of the URL]
    #[arg(long, value_name = "URL")]
    edge: Option<String>,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it like 'Accept-Language: de'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Runs `explain`.
pub(super) async fn run(args: ExplainArgs, globals: &Globals) -> Result<(), CliError> {
    let edge = edge(&args)?;
    let (token, token_from) = if may_see_token(&args, &edge) {
        globals.token()?
    } else {
        (None, "nothing: a token is shown only to an edge that --edge names".to_owned())
    };
    let asked = ExplainRequest { url: args.url, method: args.method, headers: args.headers, client_ip: args.client_ip };
    let explanation = ask(&edge, &asked, token.as_ref(), &token_from).await?;
    let out = globals.out();
    if out.is_json() { out.json(&explanation) } else { print(&out, &explanation) }
}

/// Where to ask: `http://HOST:PORT`.
fn edge(args: &ExplainArgs) -> Result<Uri, CliError> {
    let wrong = |why: &str| CliError::usage(why.to_owned()).with_hint("write it like http://127.0.0.1:8080/path");
    let url: Uri = args.url.parse().map_err(|_| wrong("the URL cannot be understood"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) || url.authority().is_none() {
        return Err(wrong("the URL does not begin with http://HOST or https://HOST"));
    }
    let (edge, from) = match &args.edge {
        Some(edge) => (edge.trim_end_matches('/').parse().map_err(|_| wrong("--edge: it is not a URL"))?, "--edge"),
        None => (url, "the URL"),
    };
    let Some(authority) = edge.authority().filter(|_| edge.scheme_str() == Some("http")) else {
        return Err(CliError::usage(format!("{from}: only http:// is spoken to edges by this version"))
            .with_hint("name the edge by its own address with --edge http://IP:PORT"));
    };
    if args.edge.is_some() && edge.path().len() > 1 {
        return Err(CliError::usage("--edge: it has a path; write it like http://10.0.0.7:8610"));
    }
    format!("http://{authority}{EXPLAIN_PATH}").parse().map_err(|_| wrong("the URL cannot be understood"))
}

fn may_see_token(args: &ExplainArgs, edge: &Uri) -> bool {
    let host = edge.host().unwrap_or_default().trim_matches(['[', ']']);
    args.edge.is_some() || host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

async fn ask(
    edge: &Uri,
    asked: &ExplainRequest,
    token: Option<&TokenSecret>,
    token_from: &str,
) -> Result<Explanation, CliError> {
    let failed = |why: &dyn std::fmt::Display| CliError::failed(format!("cannot explain: {why}"));
    let mut request = Request::post(edge.clone()).header(header::CONTENT_TYPE, "application/json");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.reveal()));
    }
    let request = request.body(Body::full(json_line(asked)?)).map_err(|error| failed(&error))?;
    let response = HttpClient::new(ClientLimits::default()).send(request).await.map_err(|error| {
        failed(&error).with_hint("an edge is asked at the URL's own host and port, or where --edge says")
    })?;
    let status = response.status();
    let body = net::read_to_end(response.into_body(), MAX_EXPLANATION_BYTES).await.map_err(|error| failed(&error))?;
    if status == StatusCode::OK {
        return serde_json::from_slice(&body).map_err(|error| {
            failed(&format!("the answer is no explanation ({error})")).with_hint("is it an edge of this version?")
        });
    }
    match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(failed(&human::plain(&problem.detail)).with_hint(format!(
                "it takes an address in the zone's purge_networks, or a token that may read; the token came from {token_from}"
            )))
        }
        Ok(problem) => Err(failed(&human::plain(&problem.detail))),
        Err(_) => {
            Err(failed(&format!("{edge} answered {status}")).with_hint("is it an edge? Name one with --edge"))
        }
    }
}

fn print(out: &Out, explanation: &Explanation) -> Result<(), CliError> {
    out.text(&human::plain_lines(&lines(explanation)))
}

/// Every step on a line, and each of its facts on one below it, all aligned.
fn lines(explanation: &Explanation) -> Vec<String> {
    let stages = explanation.steps.iter().map(|step| step.stage.as_str()).chain(["outcome"]);
    let width = stages.map(|stage| stage.chars().count()).max().unwrap_or(0) + 2;
    let mut lines = Vec::new();
    for step in &explanation.steps {
        lines.push(format!("{:<width$}{}", step.stage, step.decision));
        let names = step.facts.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) + 2;
        lines.extend(step.facts.iter().map(|(name, value)| format!("{:<width$}  {name:<names$}{value}", "")));
    }
    lines.push(format!("{:<width$}{} (at edge {})", "outcome", explanation.outcome, explanation.node));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ExplainStep;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn parse(line: &str) -> ExplainArgs {
        Line::try_parse_from(std::iter::once("explain").chain(line.split(' '))).expect(line).args
    }

    #[test]
    fn where_is_asked_and_who_sees_the_token() {
        for (line, expected, token) in [
            ("http://127.0.0.1:8080/a?b", "http://127.0.0.1:8080/-/explain", true),
            ("http://[::1]:8080", "http://[::1]:8080/-/explain", true),
            ("http://localhost/", "http://localhost/-/explain", true),
            ("http://shop.example/", "http://shop.example/-/explain", false),
            ("http://127.0.0.1.example/", "http://127.0.0.1.example/-/explain", false),
            ("https://shop.example/ --edge http://10.0.0.7:8610/", "http://10.0.0.7:8610/-/explain", true),
        ] {
            let args = parse(line);
            let edge = edge(&args).expect(line);
            assert_eq!((edge.to_string().as_str(), may_see_token(&args, &edge)), (expected, token), "{line}");
        }
        for (line, word) in [
            ("/a", "does not begin with http://HOST"),
            ("ftp://a/", "does not begin with http://HOST"),
            ("https://shop.example/", "the URL: only http://"),
            ("http://a/ --edge https://b", "--edge: only http://"),
            ("http://a/ --edge b:1", "--edge"),
            ("http://a/ --edge http://b/c", "--edge: it has a path"),
        ] {
            let error = edge(&parse(line)).expect_err(line).report(false);
            assert!(error.contains(word), "{line}: {error}");
        }
    }

    #[test]
    fn headers_have_a_name() {
        assert_eq!(field("Cookie: a=b: c"), Ok(("Cookie".to_owned(), "a=b: c".to_owned())));
        assert!(field("Cookie").is_err());
    }

    #[test]
    fn steps_are_aligned() {
        let step = |stage: &str, decision: &str, facts: &[(&str, &str)]| ExplainStep {
            stage: stage.to_owned(),
            decision: decision.to_owned(),
            facts: facts.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        let explanation = Explanation {
            node: "oslo".to_owned(),
            steps: vec![
                step("zone", "shop", &[]),
                step("freshness", "fresh for 40 s", &[("lifetime", "60 s"), ("age", "20 s")]),
            ],
            outcome: "hit".to_owned(),
        };
        assert_eq!(
            lines(&explanation),
            [
                "zone       shop",
                "freshness  fresh for 40 s",
                "             lifetime  60 s",
                "             age       20 s",
                "outcome    hit (at edge oslo)",
            ]
        );
    }
}
