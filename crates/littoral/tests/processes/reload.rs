//! SIGHUP under load: certificates, the zone file and the access log are read and opened again, and nobody notices.

use crate::edge::{Authority, Edge, Website, ask, certificate, connect, replace, until};
use crate::load::Load;

#[test]
fn a_hangup_reads_everything_again_and_what_is_broken_stays_as_it_was() {
    let (website, authority, folder) = (Website::start(), Authority::new(), tempfile::tempdir().expect("folder"));
    let (zone, log) = (folder.path().join("zone.toml"), folder.path().join("access.json"));
    let with_mark = |mark: u32| {
        let upstream = format!("upstreams = [{{ url = \"{}\" }}]", website.url);
        format!(
            "name = \"site\"\n[pull]\n{upstream}\nresponse_headers = [{{ name = \"x-mark\", value = \"{mark}\" }}]\n"
        )
    };
    replace(&zone, &with_mark(1));
    let first = authority.sign();
    let mut flags = authority.flags();
    let (zone_file, log_file) = (zone.display().to_string(), log.display().to_string());
    flags.extend(["--listen", "127.0.0.1:0", "--zone-file", &zone_file, "--access-log", &log_file].map(str::to_owned));
    let edge = Edge::start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let client = authority.client("http/1.1");
    let mark = || {
        let head = ask(&mut connect(edge.plain()).expect("connected"), "GET", "/mark").expect("an answer").head;
        head.split("\r\n").find_map(|line| line.strip_prefix("x-mark: ")?.parse::<u32>().ok())
    };
    assert_eq!((certificate(edge.tls(), &client), mark()), (first, Some(1)));
    let load = Load::start(edge.plain(), edge.tls(), &client);
    load.goes_on(100);

    // All at once. The log has been moved away, as logrotate does.
    let second = authority.sign();
    replace(&zone, &with_mark(2));
    std::fs::rename(&log, folder.path().join("access.json.1")).expect("moved");
    edge.signal("-HUP");
    edge.says("certificates read again", 1);
    edge.says("zone file read again", 1);
    assert_eq!((certificate(edge.tls(), &client), mark()), (second.clone(), Some(2)));
    until("a new access log", || std::fs::metadata(&log).is_ok_and(|file| file.len() > 0));
    load.goes_on(100);

    // Neither can be used.
    replace(&authority.path("site.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    replace(&zone, "name = \"site\"\n[pull]\nupstream = 1\n");
    edge.signal("-HUP");
    edge.says("certificates read again", 2);
    edge.says("the zone stays as it was", 1);
    let log = edge.log();
    let said = |words: &[&str]| log.split("ERROR").skip(1).any(|text| words.iter().all(|word| text.contains(word)));
    assert!(said(&["site.crt is not a certificate chain", "certificates are served as they were"]), "{log}");
    assert!(said(&["zone.toml is not valid", "unknown field `upstream`", "the zone stays as it was"]), "{log}");
    assert_eq!((certificate(edge.tls(), &client), mark()), (second, Some(2)));
    load.goes_on(100);

    // Mended.
    let third = authority.sign();
    replace(&zone, &with_mark(3));
    edge.signal("-HUP");
    edge.says("certificates read again", 3);
    edge.says("zone file read again", 2);
    assert_eq!((certificate(edge.tls(), &client), mark()), (third, Some(3)));
    load.goes_on(100);
    load.end();
}
