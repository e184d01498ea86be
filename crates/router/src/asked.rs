//! What a request asks for, and from where: pure.

use api::addressing::{Target, Zones, request_host};
use api::names::decode_url;
use api::{ErrorCode, Place, Problem};
use http::request::Parts;

/// A request, understood.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    /// The file.
    pub(crate) target: Target,
    /// Where the client is.
    pub(crate) place: Place,
    /// The host as the client wrote it; empty where it named none.
    pub(crate) host: String,
    /// The path as the client wrote it.
    pub(crate) path: String,
    /// The query without `lat` and `lng`: empty, or with its `?`.
    pub(crate) query: String,
}

impl Asked {
    /// Understands a request. The client's place is that in `?lat=&lng=`, else that in the header which the zone names,
    /// else the default.
    ///
    /// # Errors
    /// No zone answers, or one that is not routed; the path is no path of a file, or the place in the query cannot be understood.
    pub(crate) fn new(zones: &Zones, head: &Parts, default_place: Place) -> Result<Self, Problem> {
        let host = request_host(&head.uri, &head.headers);
        let path = head.uri.path();
        if let Some(zone) = zones.by_host(host).filter(|zone| zone.pull.is_some() && !path.starts_with("/-/")) {
            // What a request means there depends on its host, which a redirect to an edge's own address would lose, and on
            // methods and bodies that a router does not carry.
            let detail = format!("routers do not route zone '{}', a pull zone: lead its hosts to an edge", zone.name);
            return Err(Problem::new(ErrorCode::UnknownFile, detail));
        }
        let target = zones.target(host, path)?;
        let query = head.uri.query().unwrap_or_default();
        let place = match place_in_query(query)? {
            Some(place) => place,
            None => place_in_header(&target, head).unwrap_or(default_place),
        };
        Ok(Self { target, place, host: host.to_owned(), path: path.to_owned(), query: without_place(query) })
    }

    /// The URL of the file at an edge: with the path as the client wrote it where that means the same there.
    pub(crate) fn url_at_edge(&self, zones: &Zones, edge_url: &str) -> String {
        let edge_url = edge_url.trim_end_matches('/');
        let host = edge_url.split_once("://").map_or(edge_url, |(_, host)| host);
        let same = match (zones.target(host, &self.path), &self.target) {
            (Ok(Target::Id { id, .. }), Target::Id { id: asked, .. }) => id == *asked,
            (Ok(there), asked) => there == *asked,
            (Err(_), _) => false,
        };
        let url = if same { format!("{edge_url}{}", self.path) } else { zones.url_at_edge(edge_url, &self.target) };
        url + &self.query
    }

    /// The URL of the file at the origin.
    pub(crate) fn url_at_origin(&self, origin_url: &str) -> String {
        format!("{}{}{}", origin_url.trim_end_matches('/'), self.target.own_path(), self.query)
    }
}

/// The place that a query names: both coordinates, or nothing.
fn place_in_query(query: &str) -> Result<Option<Place>, Problem> {
    let find = |name: &str| pairs(query).find(|(n, _)| *n == name).map(|(_, value)| value);
    let invalid = |why: String| Problem::new(ErrorCode::InvalidRequest, why);
    let number = |name: &str, value: &str| {
        let decoded = decode_url(value).unwrap_or_default();
        decoded
            .parse::<f64>()
            .map_err(|_| invalid(format!("{name}={value} is not a number; write degrees, like {name}=38.72")))
    };
    match (find("lat"), find("lng")) {
        (None, None) => Ok(None),
        (Some(lat), Some(lng)) => Ok(Some(Place::new(number("lat", lat)?, number("lng", lng)?)?)),
        (Some(_), None) => Err(invalid("the query has lat and no lng; give both, or neither".to_owned())),
        (None, Some(_)) => Err(invalid("the query has lng and no lat; give both, or neither".to_owned())),
    }
}

/// The place in the header that the zone names. Something trusted sets it, so what it cannot say is left to the default.
fn place_in_header(target: &Target, head: &Parts) -> Option<Place> {
    let name = target.zone()?.place_header.as_deref()?;
    head.headers.get(name)?.to_str().ok()?.parse().ok()
}

fn without_place(query: &str) -> String {
    let mut kept = String::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let name = part.split('=').next().unwrap_or_default();
        if name != "lat" && name != "lng" {
            kept.push(if kept.is_empty() { '?' } else { '&' });
            kept.push_str(part);
        }
    }
    kept
}

fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|part| part.split_once('=').unwrap_or((part, "")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::ZoneDoc;
    use http::Request;

    const DEFAULT: Place = Place { lat: 1.0, lng: 2.0 };
    const ID: &str = "019a9f3e-0000-7000-8000-000000000000";

    fn zones() -> Zones {
        Zones::new(&[
            ZoneDoc {
                catch_all: true,
                index: Some("index.html".into()),
                place_header: Some("x-place".into()),
                ..ZoneDoc::new("files".parse().expect("zone"))
            },
            ZoneDoc { hosts: vec!["img.example".into()], ..ZoneDoc::new("img".parse().expect("zone")) },
            ZoneDoc {
                hosts: vec!["shop.example".into()],
                pull: Some(Box::new(api::PullDoc::new(Vec::new()))),
                ..ZoneDoc::new("shop".parse().expect("zone"))
            },
        ])
    }

    fn asked(host: &str, target: &str, place_header: Option<&str>) -> Result<Asked, Problem> {
        let mut request = Request::get(target).header("host", host);
        if let Some(value) = place_header {
            request = request.header("x-place", value);
        }
        let (head, ()) = request.body(()).expect("request").into_parts();
        Asked::new(&zones(), &head, DEFAULT)
    }

    #[test]
    fn places() {
        for (target, header, expected) in [
            ("/a", None, "1,2"),
            ("/a?lat=38.72&lng=-9.14", Some("5,6"), "38.72,-9.14"),
            ("/a?lng=%2D9.14&x=1&lat=38.72", None, "38.72,-9.14"),
            ("/a?x=lat", Some("5,6"), "5,6"),
            ("/a", Some("nonsense"), "1,2"),
        ] {
            assert_eq!(asked("x", target, header).expect(target).place.to_string(), expected, "{target}");
        }
        // Only the zone that names the header reads it.
        assert_eq!(asked("img.example", "/a", Some("5,6")).expect("asked").place, DEFAULT);
        for (target, why) in [
            ("/a?lat=1", "no lng"),
            ("/a?lng=1", "no lat"),
            ("/a?lat=x&lng=1", "lat=x is not a number"),
            ("/a?lat=1&lng=", "lng= is not a number"),
            ("/a?lat=1&lng=%", "is not a number"),
            ("/a?lat=91&lng=1", "-90 to 90"),
            ("/a?lat=NaN&lng=1", "-90 to 90"),
            ("/a?lat=inf&lng=1", "-90 to 90"),
        ] {
            let problem = asked("x", target, None).expect_err(target);
            assert!(problem.detail.contains(why) && problem.status == 400, "{target}: {problem:?}");
        }
    }

    /// Where an edge, an edge of a zone's own host, and the origin serve it.
    fn check(host: &str, target: &str, edge: &str, zone_edge: &str, origin: &str) {
        let asked = asked(host, target, None).expect(target);
        assert_eq!(asked.url_at_edge(&zones(), "http://1.2.3.4:80/"), format!("http://1.2.3.4:80{edge}"));
        assert_eq!(asked.url_at_edge(&zones(), "http://img.example"), format!("http://img.example{zone_edge}"));
        assert_eq!(asked.url_at_origin("http://o/"), format!("http://o{origin}"));
    }

    #[test]
    fn urls() {
        let own = "/-/content/files/a%20b";
        check("x", "/a%20b?lat=1&v=2&lng=3&w", "/a%20b?v=2&w", &format!("{own}?v=2&w"), &format!("{own}?v=2&w"));
        // As the client wrote it, where it means the same.
        check("x", "/docs/", "/docs/", "/-/content/files/docs/index.html", "/-/content/files/docs/index.html");
        check("x", "/%61", "/%61", "/-/content/files/a", "/-/content/files/a");
        check("img.example", "/a?lat=1&lng=1", "/-/content/img/a", "/a", "/-/content/img/a");
        check("x", "/-/content/img/%61", "/-/content/img/%61", "/-/content/img/%61", "/-/content/img/a");
        let id = format!("/-/{ID}");
        check("img.example", &id, &id, &id, &format!("/-/content-id/{ID}"));
    }

    #[test]
    fn refusals() {
        for (target, code) in [
            ("/a/../b", ErrorCode::InvalidName),
            ("/%2e%2e/b", ErrorCode::InvalidName),
            ("/-/content/nope/a", ErrorCode::UnknownZone),
            ("/-/blob/a", ErrorCode::UnknownFile),
        ] {
            assert_eq!(asked("x", target, None).expect_err(target).code, code, "{target}");
        }
        for target in ["/", "/a/../b", "/cart?x=1"] {
            let problem = asked("shop.example", target, None).expect_err(target);
            assert!(problem.detail.contains("zone 'shop', a pull zone"), "{target}: {problem:?}");
        }
        assert!(asked("shop.example", &format!("/-/{ID}"), None).is_ok());
    }
}
