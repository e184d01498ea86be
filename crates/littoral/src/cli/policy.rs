//! The flags of a pull zone's policy: the same for `zone add`, `zone set` and `edge --upstream`.
//!
//! A flag that is given replaces the setting, a list as a whole; an empty text empties a list or takes a setting away. What
//! a flag cannot say (patterns with commas in them, for example), a zone file can.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use api::PullDoc;
use api::pull::{
    CachePolicy, CompressionDoc, Encoding, HeaderChange, HealthCheckDoc, MAX_CA_BYTES, OriginProtocol, QueryKey,
    RequestMatch, RetryDoc, UpstreamDoc,
};
use clap::{ArgAction, Args};
use ipnet::IpNet;

use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::policy_values::{
    self as values, Emptied, Ttl, alias, bypass, default_time, encodings, header_change, one_of, query, time, ttl,
    upstream,
};

/// What can be said of a policy.
#[derive(Debug, Clone, Default, PartialEq, Args)]
#[command(next_help_heading = "In front of a website")]
pub struct PolicyArgs {
    /// A server of the website, like http://127.0.0.1:3000 or https://10.0.0.5:8443,weight=2; may be repeated
    #[arg(long = "upstream", value_name = "URL[,weight=N]", value_parser = upstream)]
    pub upstreams: Vec<Emptied<UpstreamDoc>>,
    /// What is cached where responses leave it open: safe, or all that the RFCs allow
    #[arg(long, value_name = "POLICY", value_parser = one_of::<CachePolicy>(&["safe", "rfc"]))]
    pub policy: Option<CachePolicy>,
    /// `Host` to send to the servers [default: the one that was asked for]
    #[arg(long, value_name = "HOST")]
    pub origin_host: Option<String>,
    /// Name for the servers' certificate [default: their name]
    #[arg(long, value_name = "NAME")]
    pub sni: Option<String>,
    /// Take any certificate from the servers
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub no_verify: Option<bool>,
    /// File with certificates (PEM) to trust beside the public ones
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// HTTP to speak to the servers
    #[arg(long, value_name = "HTTP", value_parser = one_of::<OriginProtocol>(&["auto", "http1", "http2"]))]
    pub protocol: Option<OriginProtocol>,
    /// Longest wait for a connection to a server
    #[arg(long, value_name = "N")]
    pub connect_ms: Option<u32>,
    /// Longest wait for the head of a response
    #[arg(long, value_name = "N")]
    pub first_byte_ms: Option<u32>,
    /// Longest silence within a body
    #[arg(long, value_name = "N")]
    pub idle_ms: Option<u32>,
    /// Longest wait for somebody else's fetch of the same
    #[arg(long, value_name = "N")]
    pub wait_ms: Option<u32>,
    /// Connections to each server
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u32>,
    /// Requests to send again: those of which nothing was sent, or safe ones too
    #[arg(long, value_name = "WHICH", value_parser = one_of::<RetryDoc>(&["unsent", "safe"]))]
    pub retry: Option<RetryDoc>,
    /// Path to ask each server for regularly, to know whether it is well
    #[arg(long, value_name = "PATH")]
    pub health: Option<String>,
    /// Header to set in requests to the servers, or to remove ('NAME:'); may be repeated
    #[arg(long = "request-header", value_name = "NAME: VALUE", value_parser = header_change)]
    pub request_headers: Vec<Emptied<HeaderChange>>,
    /// Header to set in responses, or to remove ('NAME:'); may be repeated
    #[arg(long = "response-header", value_name = "NAME: VALUE", value_parser = header_change)]
    pub response_headers: Vec<Emptied<HeaderChange>>,
    /// How long a response is fresh that does not say, like 5m
    #[arg(long, value_name = "DURATION", value_parser = default_time)]
    pub default_ttl: Option<Emptied<u32>>,
    /// Rule about responses, like 'path=/img/*,type=image/*,ttl=1h' or 'status=404,ttl=10s'; also grace= (stale if error),
    /// revalidate= (stale while revalidate) and caching=force|never; may be repeated, the first that fits counts.
    /// Of a zone without --upstream: how long a file is fresh, like 1h
    #[arg(long, value_name = "RULE|DURATION", value_parser = ttl)]
    pub ttl: Vec<Emptied<Ttl>>,
    /// How long a response may be served past its freshness while it is asked about
    #[arg(long, value_name = "DURATION", value_parser = time)]
    pub stale_while_revalidate: Option<u32>,
    /// How long it may be served past its freshness while the origin is away, like 1d
    #[arg(long, value_name = "DURATION", value_parser = time)]
    pub stale_if_error: Option<u32>,
    /// Query parameters that count: all, none, sorted, only:a,b or except:utm_*
    #[arg(long, value_name = "WHICH", value_parser = query)]
    pub query: Option<QueryKey>,
    /// Header whose value makes a page another one; may be repeated
    #[arg(long = "key-header", value_name = "NAME", value_parser = values::text)]
    pub key_headers: Vec<Emptied<String>>,
    /// Cookie whose value makes a page another one; may be repeated
    #[arg(long = "key-cookie", value_name = "NAME", value_parser = values::text)]
    pub key_cookies: Vec<Emptied<String>>,
    /// Host that is taken for another one, like www.shop.example=shop.example; may be repeated
    #[arg(long = "alias", value_name = "ALIAS=HOST", value_parser = alias)]
    pub aliases: Vec<Emptied<(String, String)>>,
    /// Requests that are not cached, like 'path=/admin/*' or 'cookie=session*,header=X-Debug,query=preview'; may be
    /// repeated
    #[arg(long, value_name = "CONDITIONS", value_parser = bypass)]
    pub bypass: Vec<Emptied<RequestMatch>>,
    /// Remove Set-Cookie from responses that are cached
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub strip_set_cookie: Option<bool>,
    /// Largest response to cache, like 64MiB
    #[arg(long, value_name = "SIZE")]
    pub max_object: Option<crate::config::Size>,
    /// Tags to take from one response
    #[arg(long, value_name = "N")]
    pub max_tags: Option<u32>,
    /// Stored responses to compress for clients that accept it: on, off, or the encodings, like br,gzip [default: on, with
    /// `--policy rfc` off]
    #[arg(long, value_name = "WHICH", value_parser = encodings)]
    pub compression: Option<Emptied<Vec<Encoding>>>,
    /// Media type to compress, like text/*; may be repeated
    #[arg(long = "compress-type", value_name = "TYPE", value_parser = values::text)]
    pub compress_types: Vec<Emptied<String>>,
    /// Smallest body to compress
    #[arg(long, value_name = "SIZE")]
    pub compress_min: Option<crate::config::Size>,
    /// Largest body to compress, at most 4MiB
    #[arg(long, value_name = "SIZE")]
    pub compress_max: Option<crate::config::Size>,
    /// Network whose X-Forwarded-* is believed, like 10.0.0.0/8; may be repeated
    #[arg(long = "trust", value_name = "NETWORK", value_parser = values::network)]
    pub trusted_networks: Vec<Emptied<IpNet>>,
    /// Network that may PURGE and explain without a token; may be repeated
    #[arg(long = "purge-from", value_name = "NETWORK", value_parser = values::network)]
    pub purge_networks: Vec<Emptied<IpNet>>,
}

impl PolicyArgs {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there are servers after [`Self::apply`], if `before` says whether there were some before.
    pub fn pulls(&self, before: bool) -> bool {
        if self.upstreams.is_empty() { before } else { self.upstreams.iter().any(|said| *said != Emptied::Empty) }
    }

    /// Changes `pull` where something was said; makes one where there is none and servers are named. `--upstream ''` takes
    /// it away.
    ///
    /// # Errors
    /// Flags that need servers where there are none; a file that cannot be read.
    pub fn apply(self, pull: Option<Box<PullDoc>>) -> Result<Option<Box<PullDoc>>, CliError> {
        if self.is_empty() {
            return Ok(pull);
        }
        let upstreams: Vec<_> = self.upstreams.iter().cloned().filter_map(Emptied::value).collect();
        let Some(mut pull) = pull.or_else(|| (!upstreams.is_empty()).then(|| Box::new(PullDoc::new(Vec::new()))))
        else {
            return Err(CliError::usage("these flags are about a zone in front of a website, and no server is named")
                .with_hint("name the website's server with --upstream URL"));
        };
        if !self.upstreams.is_empty() && upstreams.is_empty() {
            return if (Self { upstreams: Vec::new(), ..self }).is_empty() {
                Ok(None)
            } else {
                Err(CliError::usage("--upstream '' makes the zone one without a policy; leave the other flags away"))
            };
        }
        self.apply_servers(&mut pull)?;
        self.apply_caching(&mut pull)?;
        Ok(Some(pull))
    }

    /// What is about the way to the servers.
    fn apply_servers(&self, pull: &mut PullDoc) -> Result<(), CliError> {
        replace(&mut pull.upstreams, &self.upstreams);
        text(&mut pull.origin_host, self.origin_host.as_deref());
        text(&mut pull.sni, self.sni.as_deref());
        pull.verify = self.no_verify.map_or(pull.verify, |off| !off);
        if let Some(file) = &self.ca {
            pull.ca = if file.as_os_str().is_empty() { None } else { Some(read_ca(file)?) };
        }
        pull.protocol = self.protocol.unwrap_or(pull.protocol);
        let timeouts = &mut pull.timeouts;
        for (setting, said) in [
            (&mut timeouts.connect_ms, self.connect_ms),
            (&mut timeouts.first_byte_ms, self.first_byte_ms),
            (&mut timeouts.idle_ms, self.idle_ms),
            (&mut timeouts.wait_ms, self.wait_ms),
            (&mut pull.max_connections, self.max_connections),
        ] {
            *setting = said.unwrap_or(*setting);
        }
        pull.retry = self.retry.unwrap_or(pull.retry);
        if let Some(path) = &self.health {
            pull.health = match (pull.health.take(), path.as_str()) {
                (_, "") => None,
                (Some(health), path) => Some(HealthCheckDoc { path: path.to_owned(), ..health }),
                (None, path) => Some(HealthCheckDoc::new(path)),
            };
        }
        replace(&mut pull.request_headers, &self.request_headers);
        replace(&mut pull.response_headers, &self.response_headers);
        Ok(())
    }

    /// What is about caching.
    fn apply_caching(&self, pull: &mut PullDoc) -> Result<(), CliError> {
        pull.policy = self.policy.unwrap_or(pull.policy);
        if let Some(time) = &self.default_ttl {
            pull.default_ttl_s = time.clone().value();
        }
        if !self.ttl.is_empty() {
            let rules = self.ttl.iter().cloned().filter_map(Emptied::value).map(Ttl::rule);
            pull.rules = rules.collect::<Result<_, _>>().map_err(CliError::usage)?;
        }
        pull.stale_while_revalidate_s = self.stale_while_revalidate.unwrap_or(pull.stale_while_revalidate_s);
        pull.stale_if_error_s = self.stale_if_error.unwrap_or(pull.stale_if_error_s);
        if let Some(query) = &self.query {
            pull.key.query.clone_from(query);
        }
        replace(&mut pull.key.headers, &self.key_headers);
        replace(&mut pull.key.cookies, &self.key_cookies);
        if !self.aliases.is_empty() {
            let aliases: Vec<_> = self.aliases.iter().cloned().filter_map(Emptied::value).collect();
            let count = aliases.len();
            pull.key.host_aliases = aliases.into_iter().collect::<BTreeMap<_, _>>();
            if pull.key.host_aliases.len() != count {
                return Err(CliError::usage("--alias: one host is given as an alias of two others"));
            }
        }
        replace(&mut pull.bypass, &self.bypass);
        pull.strip_set_cookie = self.strip_set_cookie.unwrap_or(pull.strip_set_cookie);
        pull.max_object_bytes = self.max_object.map_or(pull.max_object_bytes, |size| size.0);
        pull.max_tags = self.max_tags.unwrap_or(pull.max_tags);
        self.apply_compression(pull);
        replace(&mut pull.trusted_networks, &self.trusted_networks);
        replace(&mut pull.purge_networks, &self.purge_networks);
        Ok(())
    }
}

impl PolicyArgs {
    /// What is about compression. Who names types or sizes wants it, unless it is said to be off.
    fn apply_compression(&self, pull: &mut PullDoc) {
        match &self.compression {
            Some(Emptied::Empty) => pull.compression = None,
            Some(Emptied::Value(encodings)) => {
                pull.compression.get_or_insert_default().encodings.clone_from(encodings);
            }
            None => {}
        }
        let types: Vec<String> = self.compress_types.iter().cloned().filter_map(Emptied::value).collect();
        if !self.compress_types.is_empty() {
            pull.compression.get_or_insert_default().types =
                if types.is_empty() { CompressionDoc::default().types } else { types };
        }
        if let Some(size) = self.compress_min {
            pull.compression.get_or_insert_default().min_bytes = bytes(size);
        }
        if let Some(size) = self.compress_max {
            pull.compression.get_or_insert_default().max_bytes = bytes(size);
        }
    }
}

/// What is more than can be said is refused with the whole policy.
fn bytes(size: crate::config::Size) -> u32 {
    u32::try_from(size.0).unwrap_or(u32::MAX)
}

/// Replaces a list, if something was said of it.
fn replace<T: Clone>(list: &mut Vec<T>, said: &[Emptied<T>]) {
    if !said.is_empty() {
        *list = said.iter().cloned().filter_map(Emptied::value).collect();
    }
}

/// Replaces a text, if something was said of it.
fn text(setting: &mut Option<String>, said: Option<&str>) {
    if let Some(text) = said {
        *setting = (!text.is_empty()).then(|| text.to_owned());
    }
}

fn read_ca(file: &Path) -> Result<String, CliError> {
    let cannot = |why: &dyn std::fmt::Display| {
        CliError::failed(format!("cannot read the certificates {}: {why}", human::file_name(file)))
    };
    let mut text = String::new();
    // One byte more than is allowed, so that validation finds a longer file too long.
    let opened = File::open(file).map_err(|error| cannot(&error))?;
    opened.take(MAX_CA_BYTES as u64 + 1).read_to_string(&mut text).map_err(|error| cannot(&error))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::{Value, json};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: PolicyArgs,
    }

    /// Arguments divided by spaces; `''` is the empty one.
    fn parse(line: &str) -> Result<PolicyArgs, clap::Error> {
        let words = line.split_whitespace().map(|word| if word == "''" { "" } else { word });
        Line::try_parse_from(std::iter::once("x").chain(words)).map(|line| line.args)
    }

    /// The members that differ from those of a policy with one server and nothing else said.
    fn changed(line: &str) -> Value {
        let new = |line: &str| {
            let pull = parse(line).expect(line).apply(None).expect(line).expect("a policy");
            assert_eq!(pull.validate(), Ok(()), "{line}");
            serde_json::to_value(&pull).expect("JSON")
        };
        let plain = new("--upstream http://a");
        let mut pull = new(&format!("--upstream http://a {line}"));
        pull.as_object_mut().expect("object").retain(|name, value| plain.get(name) != Some(value));
        pull
    }

    #[test]
    fn every_flag_means_what_it_says() {
        for (line, expected) in [
            ("", json!({})),
            ("--policy rfc", json!({"policy": "rfc"})),
            ("--origin-host shop.example --sni x", json!({"origin_host": "shop.example", "sni": "x"})),
            ("--no-verify", json!({"verify": false})),
            ("--no-verify false", json!({})),
            ("--protocol http2 --retry unsent", json!({"protocol": "http2", "retry": "unsent"})),
            (
                "--connect-ms 1 --first-byte-ms 2 --idle-ms 3 --wait-ms 4 --max-connections 5",
                json!({
                    "timeouts": {"connect_ms": 1, "first_byte_ms": 2, "idle_ms": 3, "wait_ms": 4},
                    "max_connections": 5
                }),
            ),
            (
                "--health /up",
                json!({"health": {
                    "path": "/up", "interval_ms": 5000, "timeout_ms": 2000, "statuses": ["200-399"],
                    "healthy_after": 2, "unhealthy_after": 2
                }}),
            ),
            (
                "--request-header X-A:1:2 --request-header X-B: --response-header Server:",
                json!({
                    "request_headers": [{"name": "X-A", "value": "1:2"}, {"name": "X-B"}],
                    "response_headers": [{"name": "Server"}]
                }),
            ),
            ("--default-ttl 5m", json!({"default_ttl_s": 300})),
            ("--default-ttl 0s", json!({"default_ttl_s": 0})),
            (
                "--ttl path=/img/*,status=2xx,status=404,type=image/*,ttl=1h,grace=2m,revalidate=0,caching=force \
                 --ttl status=404,caching=never",
                json!({"rules": [
                    {
                        "path": "/img/*", "statuses": ["2xx", "404"], "media_types": ["image/*"], "caching": "force",
                        "ttl_s": 3600, "stale_if_error_s": 120, "stale_while_revalidate_s": 0
                    },
                    {"statuses": ["404"], "media_types": [], "caching": "never"}
                ]}),
            ),
            ("--stale-while-revalidate 10s --stale-if-error 1d", json!({"stale_while_revalidate_s": 10})),
            (
                "--query only:a,b --key-header X-C --key-cookie lang --alias www.a=a",
                json!({"key": {
                    "query": {"only": ["a", "b"]}, "headers": ["X-C"], "cookies": ["lang"], "host_aliases": {"www.a": "a"}
                }}),
            ),
            (
                "--query except:utm_*",
                json!({"key": {"query": {"except": ["utm_*"]}, "headers": [], "cookies": [], "host_aliases": {}}}),
            ),
            (
                "--bypass path=/admin/* --bypass cookie=s*,header=X,query=q",
                json!({"bypass": [{"path": "/admin/*"}, {"cookie": "s*", "header": "X", "query": "q"}]}),
            ),
            (
                "--strip-set-cookie --max-object 64MiB --max-tags 5",
                json!({"strip_set_cookie": true, "max_object_bytes": 64 << 20, "max_tags": 5}),
            ),
            (
                "--compression gzip,br --compress-type text/* --compress-type *+json --compress-min 1 --compress-max 9KiB",
                json!({"compression": {
                    "encodings": ["gzip", "br"], "types": ["text/*", "*+json"], "min_bytes": 1, "max_bytes": 9216
                }}),
            ),
            ("--compression ''", json!({})),
            (
                "--trust 10.0.0.0/8 --trust ::1 --purge-from 127.0.0.1",
                json!({"trusted_networks": ["10.0.0.0/8", "::1/128"], "purge_networks": ["127.0.0.1/32"]}),
            ),
        ] {
            assert_eq!(changed(line), expected, "{line}");
        }
        let servers = parse("--upstream https://a:1/,weight=2 --upstream http://b").expect("good");
        let servers = servers.apply(None).expect("good").expect("a policy").upstreams;
        assert_eq!(
            serde_json::to_value(servers).expect("JSON"),
            json!([{"url": "https://a:1", "weight": 2}, {"url": "http://b", "weight": 1}])
        );
    }

    #[test]
    fn what_is_said_later_replaces_and_nothing_takes_away() {
        let said = "--upstream http://a --bypass path=/a --ttl status=404,ttl=1s --sni x --health /up --default-ttl 1s \
                    --trust 10.0.0.0/8 --max-tags 3";
        let before = parse(said).expect("good").apply(None).expect("good");
        let apply = |line: &str| parse(line).expect(line).apply(before.clone()).expect(line);
        assert_eq!(apply(""), before);
        let pull = apply("--upstream http://b --bypass path=/b").expect("a policy");
        assert_eq!((pull.upstreams.len(), pull.bypass.len(), pull.max_tags), (1, 1, 3));
        assert_eq!((pull.upstreams[0].url.as_str(), pull.bypass[0].path.as_deref()), ("http://b", Some("/b")));
        let pull = apply("--bypass '' --ttl '' --sni '' --health '' --default-ttl '' --trust '' --max-tags 128");
        assert_eq!(pull, parse("--upstream http://a").expect("good").apply(None).expect("good"));
        assert_eq!(apply("--upstream ''"), None);
    }

    #[test]
    fn compression_is_on_off_or_what_is_said() {
        let doc = |line: &str| {
            let pull = parse(&format!("--upstream http://a {line}")).expect(line).apply(None).expect(line);
            pull.expect("a policy").compression()
        };
        let on = CompressionDoc::default();
        for (line, expected) in [
            ("", on.clone()),
            ("--policy rfc", CompressionDoc::off()),
            ("--policy rfc --compression on", on.clone()),
            ("--compression off", CompressionDoc::off()),
            ("--policy rfc --compress-min 7", CompressionDoc { min_bytes: 7, ..on.clone() }),
            ("--compression off --compress-min 7", CompressionDoc { min_bytes: 7, ..CompressionDoc::off() }),
            ("--compress-type ''", on),
        ] {
            assert_eq!(doc(line), expected, "{line}");
        }
        let refused = parse("--upstream http://a --compress-max 5MiB").expect("parsed").apply(None).expect("applied");
        let why = refused.expect("a policy").validate().expect_err("too large");
        assert!(why.contains("compression.max_bytes: 5242880"), "{why}");
    }

    #[test]
    fn mistakes_are_named() {
        for (line, word) in [
            ("--upstream http://a,w=2", "weight=2"),
            ("--upstream http://a,weight=x", "weight=2"),
            ("--policy fast", "safe"),
            ("--protocol h3", "http2"),
            ("--ttl 1x", "like 45s"),
            ("--ttl path=/a,time=1s", "there is no \"time\""),
            ("--ttl path=/a,ttl=soon", "ttl: use a whole number"),
            ("--ttl status=99,ttl=1s", "404, 5xx or 200-299"),
            ("--ttl ttl=1s,ttl=2s", "ttl is said twice"),
            ("--ttl caching=maybe", "caching=force or caching=never"),
            ("--ttl path=/a,/b,ttl=1s", "NAME=VALUE"),
            ("--bypass path", "NAME=VALUE"),
            ("--bypass ip=1", "use path, cookie, header and query"),
            ("--query some", "only:NAME"),
            ("--alias a", "www.shop.example=shop.example"),
            ("--request-header X", "'NAME: VALUE'"),
            ("--trust 10.0.0.0/99", "like 10.0.0.0/8"),
            ("--default-ttl 4000d", "at most 3650d"),
            ("--max-object big", "64MiB"),
            ("--compression deflate", "on, off, zstd, br or gzip"),
        ] {
            let error = parse(line).expect_err(line).to_string();
            assert!(error.contains(word), "{line}: {error}");
        }
        for (line, word) in [
            ("--policy rfc", "no server is named"),
            ("--upstream http://a --ttl 1h", "--default-ttl"),
            ("--upstream http://a --alias a=b --alias a=c", "two others"),
            ("--upstream http://a --ca /nowhere/ca.pem", "/nowhere/ca.pem"),
        ] {
            let error = parse(line).expect(line).apply(None).expect_err(line).report(false);
            assert!(error.contains(word), "{line}: {error}");
        }
        let before = parse("--upstream http://a").expect("good").apply(None).expect("good");
        let error = parse("--upstream '' --policy rfc").expect("parsed").apply(before).expect_err("both").to_string();
        assert!(error.contains("leave the other flags away"), "{error}");
    }
}
