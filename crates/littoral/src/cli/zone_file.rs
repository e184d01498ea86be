//! A zone as a file: the document of the API, in TOML or (where the name ends in `.json`) in JSON.

use std::path::Path;

use api::ZoneDoc;

use crate::cli::error::CliError;
use crate::cli::human;
use crate::config::did_you_mean;

/// Longest zone file, in bytes.
const MAX_ZONE_FILE_BYTES: u64 = 1 << 20;

/// Reads a zone file. What it says is not validated yet.
///
/// # Errors
/// It cannot be read, is neither TOML nor JSON, or holds something that is not a setting: with line and column.
pub fn read(path: &Path) -> Result<ZoneDoc, CliError> {
    let shown = human::file_name(path);
    let cannot = |why: &dyn std::fmt::Display| CliError::usage(format!("cannot read the zone file {shown}: {why}"));
    let length = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
    if length > MAX_ZONE_FILE_BYTES {
        return Err(cannot(&format!("it has {length} bytes; at most {MAX_ZONE_FILE_BYTES} are allowed")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    parse(&text, is_json).map_err(|(why, hint)| {
        let error = CliError::usage(format!("the zone file {shown} is not valid\n{why}"));
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    })
}

/// The zone in `text`, or what is wrong with it and perhaps what was meant.
fn parse(text: &str, is_json: bool) -> Result<ZoneDoc, (String, Option<String>)> {
    if is_json {
        return serde_json::from_str(text).map_err(|error| {
            let why = error.to_string();
            let hint = did_you_mean(&why);
            (why, hint)
        });
    }
    toml::from_str(text).map_err(|error| (error.to_string().trim_end().to_owned(), did_you_mean(error.message())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_placed_and_named() {
        for (text, is_json, parts) in [
            (
                "name = \"a\"\n[pull]\nupstreams = []\npolcy = \"rfc\"",
                false,
                &["line 4, column 1", "did you mean `policy`?"][..],
            ),
            ("name = \"a\"\n[pull]\n", false, &["missing field `upstreams`"]),
            ("hosts = []", false, &["missing field `name`"]),
            ("name = \"a\"\n[pull]\nupstreams = []\ntrusted_networks = [\"x\"]", false, &["line 4"]),
            (
                "name = \"a\"\n[pull]\nupstreams = []\n[[pull.rules]]\nstatuses = [\"99\"]",
                false,
                &["404, 5xx or 200-299"],
            ),
            ("{\"name\": \"a\",\n\"hots\": []}", true, &["line 2", "did you mean `hosts`?"]),
            ("x", true, &["line 1 column 1"]),
        ] {
            let (why, hint) = parse(text, is_json).expect_err(text);
            let whole = format!("{why} {}", hint.unwrap_or_default());
            for part in parts {
                assert!(whole.contains(part), "{part:?} not in {whole}");
            }
        }
    }

    /// The members of a document, at every depth: `pull.key.query` …
    fn members(value: &serde_json::Value, prefix: &str, into: &mut std::collections::BTreeSet<String>) {
        match value {
            serde_json::Value::Object(members_of) => {
                for (name, value) in members_of {
                    let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    members(value, &path, into);
                    into.insert(path);
                }
            }
            serde_json::Value::Array(list) => list.iter().for_each(|value| members(value, prefix, into)),
            _ => {}
        }
    }

    #[test]
    fn the_example_and_the_reference_name_every_setting() {
        let zone = parse(include_str!("../../../../docs/zone.example.toml"), false).expect("valid");
        assert_eq!(zone.validate(), Ok(()));
        let mut shown = std::collections::BTreeSet::new();
        members(&serde_json::to_value(&zone).expect("JSON"), "", &mut shown);

        // The description of the API is made of the types themselves.
        let api: serde_json::Value = serde_json::from_str(&api::openapi::json()).expect("JSON");
        let schema = |name: &str| {
            let members = &api["components"]["schemas"][name]["properties"];
            members.as_object().unwrap_or_else(|| panic!("{name}: {members}")).keys().cloned().collect::<Vec<_>>()
        };
        let reference = include_str!("../../../../docs/pull-zones.md");
        for (prefix, name) in [
            ("pull", "PullDoc"),
            ("pull.upstreams", "UpstreamDoc"),
            ("pull.timeouts", "TimeoutsDoc"),
            ("pull.health", "HealthCheckDoc"),
            ("pull.request_headers", "HeaderChange"),
            ("pull.rules", "CacheRule"),
            ("pull.bypass", "RequestMatch"),
            ("pull.key", "KeyDoc"),
        ] {
            for member in schema(name) {
                assert!(
                    member == "ca" || shown.contains(&format!("{prefix}.{member}")),
                    "{prefix}.{member}: no example"
                );
                let explained =
                    reference.contains(&format!("`{member}`")) || matches!(member.as_str(), "url" | "name" | "value");
                assert!(explained, "{member} is not in the reference");
            }
        }
    }
}
