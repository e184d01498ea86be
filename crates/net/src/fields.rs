//! Header fields that were read from a peer.

use bytes::BytesMut;
use http::{HeaderMap, HeaderValue};

/// Gives the values of `fields` memory of their own, exactly as much as they need. As they are read, they are parts of the
/// buffer that they came in, and who keeps one of them keeps the buffer: several times what the fields take.
pub(crate) fn detach(fields: &mut HeaderMap) {
    let mut all = BytesMut::with_capacity(fields.values().map(HeaderValue::len).sum());
    fields.values().for_each(|value| all.extend_from_slice(value.as_bytes()));
    let mut all = all.freeze();
    for value in fields.values_mut() {
        // It is the value itself, so it is one.
        if let Ok(mut own) = HeaderValue::from_maybe_shared(all.split_to(value.len())) {
            own.set_sensitive(value.is_sensitive());
            *value = own;
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn values_stay_what_they_are_and_leave_their_buffer() {
        let buffer = Bytes::from(b"one,two\xff,,three".to_vec());
        let mut fields = HeaderMap::new();
        for (name, from, to) in [("a", 0, 3), ("b", 4, 8), ("a", 9, 9), ("c", 10, 15)] {
            fields.append(name, HeaderValue::from_maybe_shared(buffer.slice(from..to)).expect("value"));
        }
        fields.get_mut("c").expect("c").set_sensitive(true);
        let before = fields.clone();
        detach(&mut fields);
        assert_eq!(fields, before);
        assert!(fields["c"].is_sensitive() && !fields["b"].is_sensitive());
        drop(before);
        assert!(buffer.is_unique());
        detach(&mut HeaderMap::new());
    }
}
