//! Tables of policies that are taken, and of those that are refused with the words that the refusal has to hold.

use serde_json::{Value, json};

use super::*;
use crate::docs::ZoneDoc;

const PEM: &str = "-----BEGIN CERTIFICATE-----\nMIIB+z==\n-----END CERTIFICATE-----\n";

/// A good policy, with the members of `changes` in place of its own.
fn pull(changes: &Value) -> PullDoc {
    let mut document = json!({"upstreams": [{"url": "http://127.0.0.1:3000"}]});
    let members = document.as_object_mut().expect("object");
    members.extend(changes.as_object().expect("object").clone());
    serde_json::from_value(document).expect("a document")
}

#[test]
fn good_policies() {
    let many = |text: &str| (0..MAX_LIST).map(|at| format!("{text}{at}")).collect::<Vec<_>>();
    for changes in [
        json!({}),
        json!({"upstreams": [{"url": "https://shop.example", "weight": 1000}, {"url": "http://[::1]:80"}, {"url": "http://10.0.0.5"}]}),
        json!({"origin_host": "shop.example:8080", "sni": "shop.example"}),
        json!({"origin_host": "[::1]", "sni": "10.0.0.5"}),
        json!({"upstreams": [{"url": "http://my_app:3000"}, {"url": "http://3com.example"}], "sni": "::1"}),
        json!({"ca": PEM}),
        json!({"ca": format!("# comment\n{PEM}{PEM}")}),
        json!({"timeouts": {"connect_ms": 1, "first_byte_ms": MAX_TIMEOUT_MS}}),
        json!({"max_connections": MAX_CONNECTIONS, "max_object_bytes": MAX_OBJECT_BYTES, "max_tags": 0}),
        json!({"compression": {"encodings": [], "types": []}}),
        json!({"compression": {"encodings": ["gzip"], "types": ["*"], "min_bytes": 1, "max_bytes": 1}}),
        json!({"health": {"path": "/up?x=1", "statuses": ["204", "3xx"], "interval_ms": MIN_CHECK_INTERVAL_MS}}),
        json!({"request_headers": [{"name": "X-Real-Ip"}, {"name": "authorization", "value": "Basic eDp5"}]}),
        json!({"response_headers": [{"name": "Cache-Control", "value": "no-cache"}, {"name": "Server"}, {"name": "X", "value": ""}]}),
        json!({"default_ttl_s": MAX_TTL_S, "stale_while_revalidate_s": MAX_TTL_S, "stale_if_error_s": 0}),
        json!({"rules": [{"path": "*.jpg", "statuses": ["2xx"], "media_types": ["image/*", "*"], "ttl_s": 0}, {"caching": "never"}]}),
        json!({"rules": [{"caching": "force", "stale_if_error_s": 1}]}),
        json!({"key": {"headers": many("X-"), "cookies": ["A", "a"], "query": {"except": ["utm_*", "*"]}}}),
        json!({"key": {"host_aliases": {"www.a.example": "a.example", "b.example": "a.example"}}}),
        json!({"bypass": [{"path": "/admin/*"}, {"cookie": "wordpress_*", "header": "X-Debug", "query": "a"}]}),
        json!({"trusted_networks": ["10.0.0.0/8", "::1/128"], "purge_networks": []}),
    ] {
        assert_eq!(pull(&changes).validate(), Ok(()), "{changes}");
    }
}

#[test]
fn bad_policies_are_refused_with_what_would_be_right() {
    let url = |url: &str| json!({"upstreams": [{"url": url}]});
    let request = |name: &str, value: &str| json!({"request_headers": [{"name": name, "value": value}]});
    let rule = |members: Value| json!({"rules": [{"ttl_s": 1}, members]});
    let key = |members: Value| json!({"key": members});
    let bypass = |members: Value| json!({"bypass": [members]});
    let long = "x".repeat(MAX_TEXT_BYTES + 1);
    let table = [
        (json!({"upstreams": []}), &["upstreams: there is none", "http://127.0.0.1:3000"][..]),
        (json!({"upstreams": vec![json!({"url": "http://a"}); MAX_UPSTREAMS + 1]}), &["upstreams", "33", "32"]),
        (json!({"upstreams": [{"url": "http://a"}, {"url": "http://a"}]}), &["upstreams[1].url", "twice", "weight"]),
        (json!({"upstreams": [{"url": "http://a", "weight": 0}]}), &["upstreams[0].weight", "1 to 1000"]),
        (json!({"upstreams": [{"url": "http://a", "weight": 1001}]}), &["upstreams[0].weight", "1 to 1000"]),
        (url(""), &["upstreams[0].url", "does not begin with http://"]),
        (url("10.0.0.5:80"), &["does not begin with http://"]),
        (url("ftp://a"), &["does not begin with http://"]),
        (url("HTTP://a"), &["does not begin with http://"]),
        (url("http://"), &["does not name a host", "http://HOST[:PORT]"]),
        (url("http://:80"), &["does not name a host"]),
        (url("http://a b"), &["does not name a host"]),
        (url("http://A.example"), &["does not name a host in lower case"]),
        (url("http://10.0.0.256"), &["does not name a host"]),
        (url("http://10.0"), &["does not name a host"]),
        (url("https://-a.example"), &["does not name a host"]),
        (url("http://a.example."), &["does not name a host"]),
        (url("http://a:"), &["no port from 1 to 65535"]),
        (url("http://a:0"), &["no port from 1 to 65535"]),
        (url("http://a:65536"), &["no port from 1 to 65535"]),
        (url("http://a:+80"), &["no port from 1 to 65535"]),
        (url("http://a:80:80"), &["no port from 1 to 65535"]),
        (url("http://[::1"), &["upstreams[0].url", "no IPv6 address"]),
        (url("http://[::1]80"), &["no port from 1 to 65535"]),
        (url("http://[a]"), &["no IPv6 address"]),
        (url("http://::1"), &["does not name a host"]),
        (url("http://a/"), &["a path or query", "http://HOST[:PORT]"]),
        (url("http://a?x"), &["a path or query"]),
        (url("http://u:p@a"), &["user or password", "Authorization"]),
        (json!({"origin_host": "http://a"}), &["origin_host"]),
        (json!({"origin_host": ""}), &["origin_host", "does not name a host"]),
        (json!({"sni": ""}), &["sni", "not a hostname"]),
        (json!({"sni": "a:443"}), &["sni", "without port"]),
        (json!({"ca": ""}), &["ca: it is not PEM", "BEGIN CERTIFICATE"]),
        (json!({"ca": "MIIB"}), &["ca: it is not PEM"]),
        (json!({"ca": "-----BEGIN CERTIFICATE-----\nMIIB"}), &["ca: certificate 1", "END CERTIFICATE"]),
        (json!({"ca": PEM.replace("MIIB", "a!b")}), &["ca: certificate 1", "base64"]),
        (json!({"ca": format!("{PEM}{}", PEM.replace("MIIB+z==", ""))}), &["ca: certificate 2"]),
        (json!({"ca": format!("-----BEGIN X509 CRL-----\n{PEM}")}), &["ca: it is not PEM"]),
        (json!({"ca": format!("{PEM}-----BEGIN PRIVATE KEY-----")}), &["ca: it holds a private key"]),
        (json!({"ca": "x".repeat(MAX_CA_BYTES + 1)}), &["ca: it has 65537 bytes", "65536"]),
        (json!({"timeouts": {"connect_ms": 0}}), &["timeouts.connect_ms: 0", "1 to 3600000"]),
        (json!({"timeouts": {"first_byte_ms": 0}}), &["timeouts.first_byte_ms"]),
        (json!({"timeouts": {"idle_ms": MAX_TIMEOUT_MS + 1}}), &["timeouts.idle_ms: 3600001"]),
        (json!({"timeouts": {"wait_ms": 0}}), &["timeouts.wait_ms"]),
        (json!({"max_connections": 0}), &["max_connections: 0", "1 to 10000"]),
        (json!({"health": {"path": "up"}}), &["health.path", "/healthz"]),
        (json!({"health": {"path": "/a b"}}), &["health.path"]),
        (json!({"health": {"path": "/a#b"}}), &["health.path"]),
        (json!({"health": {"path": format!("/{long}")}}), &["health.path", "1026 bytes"]),
        (json!({"health": {"path": "/", "interval_ms": 99}}), &["health.interval_ms: 99", "100 to"]),
        (json!({"health": {"path": "/", "timeout_ms": 0}}), &["health.timeout_ms"]),
        (json!({"health": {"path": "/", "healthy_after": 0}}), &["health.healthy_after: 0", "1 to 100"]),
        (json!({"health": {"path": "/", "unhealthy_after": 101}}), &["health.unhealthy_after: 101"]),
        (json!({"health": {"path": "/", "statuses": []}}), &["health.statuses", "2xx"]),
        (request("Host", "a"), &["request_headers[0]: Host", "origin_host"]),
        (request("content-length", "1"), &["request_headers[0]: content-length", "cannot be changed"]),
        (request("Transfer-Encoding", "chunked"), &["cannot be changed"]),
        (request("Connection", "close"), &["cannot be changed"]),
        (request("TE", "trailers"), &["cannot be changed"]),
        (request("CDN-Loop", "x"), &["CDN-Loop", "the edge's own business"]),
        (request("Range", "bytes=0-1"), &["the edge's own business"]),
        (request("If-None-Match", "*"), &["the edge's own business"]),
        (request("X A", "1"), &["request_headers[0]", "not the name of a header"]),
        (request("", "1"), &["not the name of a header"]),
        (request("X", "a\nb"), &["not a header value"]),
        (request("X", " a"), &["not a header value", "spaces at its ends"]),
        (request("X", "ä"), &["not a header value"]),
        (request("X", &long), &["request_headers[0]: value", "1025 bytes"]),
        (json!({"request_headers": [{"name": "Upgrade"}]}), &["Upgrade"]),
        (json!({"request_headers": [{"name": "X"}, {"name": "x", "value": "1"}]}), &["[1]", "changed twice"]),
        (json!({"request_headers": vec![json!({"name": "X"}); MAX_LIST + 1]}), &["101 entries; at most 100"]),
        (json!({"response_headers": [{"name": "Content-Length"}]}), &["response_headers[0]", "cannot be changed"]),
        (json!({"response_headers": [{"name": "Age", "value": "0"}]}), &["the edge's own business"]),
        (json!({"default_ttl_s": MAX_TTL_S + 1}), &["default_ttl_s", "0 to 315360000"]),
        (json!({"stale_while_revalidate_s": MAX_TTL_S + 1}), &["stale_while_revalidate_s"]),
        (json!({"stale_if_error_s": MAX_TTL_S + 1}), &["stale_if_error_s"]),
        (rule(json!({})), &["rules[1]", "changes nothing", "ttl_s"]),
        (rule(json!({"path": "/a", "caching": "force"})), &["rules[1]", "changes nothing"]),
        (rule(json!({"caching": "never", "ttl_s": 1})), &["rules[1]", "has no times"]),
        (rule(json!({"ttl_s": MAX_TTL_S + 1})), &["rules[1]: ttl_s"]),
        (rule(json!({"stale_if_error_s": MAX_TTL_S + 1})), &["rules[1]: stale_if_error_s"]),
        (rule(json!({"path": "img/*", "ttl_s": 1})), &["rules[1]: path", "fits no path", "/img/*"]),
        (rule(json!({"path": "/a?b", "ttl_s": 1})), &["fits no path"]),
        (rule(json!({"path": "", "ttl_s": 1})), &["not a pattern"]),
        (rule(json!({"path": format!("/{long}"), "ttl_s": 1})), &["not a pattern", "1024"]),
        (rule(json!({"media_types": ["png"], "ttl_s": 1})), &["rules[1]: media_types[0]", "image/*"]),
        (rule(json!({"media_types": ["text/html; charset=x"], "ttl_s": 1})), &["media_types[0]"]),
        (json!({"rules": vec![json!({"ttl_s": 1}); MAX_LIST + 1]}), &["rules", "101"]),
        (key(json!({"headers": ["X", "x"]})), &["key.headers[1]", "twice"]),
        (key(json!({"headers": ["X:"]})), &["key.headers[0]", "not the name of a header"]),
        (key(json!({"headers": ["Host"]})), &["key.headers[0]", "every key already"]),
        (key(json!({"headers": ["Cookie"]})), &["key.headers[0]", "key.cookies"]),
        (key(json!({"headers": ["Range"]})), &["key.headers[0]", "cannot be part of the key"]),
        (key(json!({"cookies": ["a=b"]})), &["key.cookies[0]", "not the name of a cookie"]),
        (key(json!({"cookies": ["a", "a"]})), &["key.cookies[1]", "twice"]),
        (key(json!({"query": {"only": []}})), &["key.query", "none"]),
        (key(json!({"query": {"only": ["a=1"]}})), &["key.query[0]", "without ="]),
        (key(json!({"query": {"except": [""]}})), &["key.query[0]", "not a pattern"]),
        (key(json!({"host_aliases": {"A": "b"}})), &["key.host_aliases", "lower case"]),
        (key(json!({"host_aliases": {"a": "b:80"}})), &["key.host_aliases", "without scheme or port"]),
        (key(json!({"host_aliases": {"a": "a"}})), &["alias of itself"]),
        (key(json!({"host_aliases": {"a": "b", "b": "c"}})), &["a leads to b", "lead it to c"]),
        (bypass(json!({})), &["bypass[0]", "no condition", "path, cookie, header or query"]),
        (bypass(json!({"path": "admin"})), &["bypass[0]: path", "fits no path"]),
        (bypass(json!({"cookie": "a=b"})), &["bypass[0]: cookie", "without ="]),
        (bypass(json!({"cookie": ""})), &["bypass[0]: cookie", "not a pattern"]),
        (bypass(json!({"header": "X-*"})), &["bypass[0]: header"]),
        (bypass(json!({"query": "a&b"})), &["bypass[0]: query"]),
        (json!({"max_object_bytes": 0}), &["max_object_bytes: 0", "1 to"]),
        (json!({"compression": {"encodings": ["gzip", "br", "gzip"]}}), &["compression.encodings[2]", "twice"]),
        (json!({"compression": {"types": []}}), &["compression.types: there is none", "leave encodings empty"]),
        (json!({"compression": {"types": ["html"]}}), &["compression.types[0]", "text/html"]),
        (json!({"compression": {"max_bytes": (4 << 20) + 1}}), &["compression.max_bytes: 4194305", "1 to 4194304"]),
        (json!({"compression": {"min_bytes": 0}}), &["compression.min_bytes: 0", "1 to 4194304"]),
        (json!({"compression": {"min_bytes": 10, "max_bytes": 9}}), &["compression.min_bytes: 10", "1 to 9"]),
        (json!({"max_tags": 1001}), &["max_tags: 1001", "0 to 1000"]),
        (json!({"trusted_networks": vec!["10.0.0.0/8"; MAX_LIST + 1]}), &["trusted_networks", "101"]),
        (json!({"purge_networks": vec!["10.0.0.0/8"; MAX_LIST + 1]}), &["purge_networks", "101"]),
    ];
    for (changes, words) in table {
        let why = pull(&changes).validate().expect_err(&changes.to_string());
        for word in words {
            assert!(why.contains(word), "{word:?} not in {why:?}");
        }
        assert!(why.len() < 400, "a sentence: {why}");
    }
}

#[test]
fn a_zone_answers_for_the_aliases_of_its_policy() {
    let aliases = json!({"key": {"host_aliases": {"www.a.example": "a.example"}}});
    let zone = |hosts: &[&str], catch_all| ZoneDoc {
        hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        catch_all,
        pull: Some(Box::new(pull(&aliases))),
        ..ZoneDoc::new("shop".parse().expect("zone"))
    };
    assert_eq!(zone(&["a.example", "www.a.example"], false).validate(), Ok(()));
    assert_eq!(zone(&[], true).validate(), Ok(()));
    for (hosts, missing) in [(&["a.example"], "www.a.example"), (&["www.a.example"], "a.example")] {
        let why = zone(hosts, false).validate().expect_err(missing);
        assert!(why.contains(&format!("does not answer for {missing}; name it in hosts")), "{why}");
    }

    let mut wrong = zone(&[], true);
    wrong.pull.as_mut().expect("pull").max_connections = 0;
    assert!(wrong.validate().expect_err("bounds").starts_with("pull.max_connections: 0"));
}
