//! What zones want of TLS: that plain requests are sent to `https://`, and that browsers remember it.

use api::ZoneDoc;
use api::addressing::request_host;
use http::header::{CACHE_CONTROL, LOCATION, STRICT_TRANSPORT_SECURITY, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use net::{Body, Peer};

/// The port of `https://`.
const HTTPS_PORT: u16 = 443;

/// Whether the client is known to speak TLS, to this edge or to a proxy in front.
pub(crate) fn is_secure(request: &Parts) -> bool {
    let to_us = request.extensions.get::<Peer>().is_some_and(|peer| peer.secure);
    api::https::is_secure(to_us, &request.headers)
}

/// The answer to a plain request that the zone wants to come over TLS. `own_port`: where this edge speaks it.
pub(crate) fn redirect(zone: &ZoneDoc, request: &Parts, own_port: Option<u16>) -> Option<Response<Body>> {
    let tls = zone.tls.as_ref().filter(|tls| tls.redirect)?;
    // What a router carries here it has looked at itself; only it knows where clients reach it.
    if is_secure(request) || came_through_a_router(&request.headers) {
        return None;
    }
    let port = tls.port.or(own_port).unwrap_or(HTTPS_PORT);
    let host = request_host(&request.uri, &request.headers);
    let (status, location) = api::https::redirect(&request.method, host, port, request.uri.path_and_query())?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::try_from(location).ok()?);
    // Kept by browsers without a word it could never be taken back; HSTS is there for what is to last.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    Some(response)
}

/// Tells the client of a secure request what browsers are to remember. An origin's own word stays.
pub(crate) fn tell(zone: &ZoneDoc, secure: bool, headers: &mut HeaderMap) {
    if let Some(value) = hsts(zone, secure)
        && !headers.contains_key(STRICT_TRANSPORT_SECURITY)
    {
        headers.insert(STRICT_TRANSPORT_SECURITY, value);
    }
}

/// What [`tell`] tells.
pub(crate) fn hsts(zone: &ZoneDoc, secure: bool) -> Option<HeaderValue> {
    let hsts = zone.tls.as_ref()?.hsts.as_ref().filter(|_| secure)?;
    HeaderValue::try_from(hsts.value()).ok()
}

fn came_through_a_router(headers: &HeaderMap) -> bool {
    headers.get_all(VIA).iter().any(|via| via.as_bytes().ends_with(api::headers::VIA_ROUTER.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::{HstsDoc, TlsDoc};
    use http::Request;

    fn zone(tls: TlsDoc) -> ZoneDoc {
        ZoneDoc { tls: Some(tls), ..ZoneDoc::new("shop".parse().expect("zone")) }
    }

    fn request(secure: bool, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::get("/x?y").header("host", "shop.example:8610").body(()).expect("request");
        request.extensions_mut().insert(Peer { address: "192.0.2.1:1".parse().expect("address"), secure });
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    #[test]
    fn plain_requests_are_redirected_once() {
        let redirecting = TlsDoc { redirect: true, ..TlsDoc::default() };
        let to_port = TlsDoc { port: Some(444), ..redirecting.clone() };
        for (tls, secure, fields, own_port, location) in [
            (&redirecting, false, &[][..], None, Some("https://shop.example/x?y")),
            (&redirecting, false, &[], Some(8670), Some("https://shop.example:8670/x?y")),
            (&to_port, false, &[], Some(8670), Some("https://shop.example:444/x?y")),
            (&redirecting, true, &[], None, None),
            (&redirecting, false, &[("x-forwarded-proto", "https")], None, None),
            (&redirecting, false, &[("x-forwarded-proto", "http")], None, Some("https://shop.example/x?y")),
            (&redirecting, false, &[("via", "1.1 littoral-router")], None, None),
            (&TlsDoc::default(), false, &[], None, None),
        ] {
            let response = redirect(&zone(tls.clone()), &request(secure, fields), own_port);
            let found = response.as_ref().map(|response| response.headers()[LOCATION].to_str().expect("text"));
            assert_eq!(found, location, "{tls:?} {secure} {fields:?}");
        }
        assert!(redirect(&ZoneDoc::new("shop".parse().expect("zone")), &request(false, &[]), None).is_none());
    }

    #[test]
    fn browsers_are_told_over_tls_only_and_the_origin_goes_first() {
        let hsts = HstsDoc { max_age_s: 60, include_subdomains: false, preload: false };
        let zone = zone(TlsDoc { hsts: Some(hsts), ..TlsDoc::default() });
        let mut headers = HeaderMap::new();
        tell(&zone, false, &mut headers);
        assert!(headers.is_empty());
        tell(&zone, true, &mut headers);
        assert_eq!(headers[STRICT_TRANSPORT_SECURITY], "max-age=60");
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=1"));
        tell(&zone, true, &mut headers);
        assert_eq!(headers[STRICT_TRANSPORT_SECURITY], "max-age=1");
    }
}
