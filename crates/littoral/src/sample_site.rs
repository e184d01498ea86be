//! The small site that is published when nobody says what: it says what Littoral is, and shows how it itself was served.

/// Path and content of each file.
pub const FILES: &[(&str, &[u8])] = &[
    ("index.html", include_bytes!("../site/index.html")),
    ("about/index.html", include_bytes!("../site/about/index.html")),
    ("style.css", include_bytes!("../site/style.css")),
    ("app.js", include_bytes!("../site/app.js")),
    ("coast.svg", include_bytes!("../site/coast.svg")),
    ("mark.svg", include_bytes!("../site/mark.svg")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    const MAX_SITE_BYTES: usize = 40 << 10;

    fn text(path: &str) -> &'static str {
        let (_, bytes) = FILES.iter().find(|(name, _)| *name == path).expect(path);
        std::str::from_utf8(bytes).expect("UTF-8")
    }

    #[tokio::test]
    async fn it_is_small_and_all_of_the_folder() {
        assert!(FILES.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() < MAX_SITE_BYTES);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("site");
        let walked = crate::publish::walk(&folder, "").await.expect("walk");
        let on_disk: BTreeSet<&str> = walked.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(on_disk, FILES.iter().map(|(path, _)| *path).collect());
    }

    #[test]
    fn every_link_leads_to_one_of_its_files() {
        for page in FILES.iter().map(|(path, _)| *path).filter(|path| path.ends_with(".html")) {
            let html = text(page);
            let links = html.split(" href=\"").skip(1).chain(html.split(" src=\"").skip(1));
            let mut seen = 0;
            for link in links.filter_map(|rest| rest.split('"').next()) {
                let target = match link.strip_prefix("../") {
                    Some(target) => target.to_owned(),
                    None => Path::new(page).with_file_name(link).to_string_lossy().into_owned(),
                };
                assert!(FILES.iter().any(|(path, _)| *path == target), "{page}: {link}");
                seen += 1;
            }
            assert!(seen >= 4, "{page}");
        }
    }

    #[test]
    fn the_script_asks_for_exactly_these_files() {
        let script = text("app.js");
        let list = script.split("const FILES = [").nth(1).and_then(|rest| rest.split(']').next()).expect("list");
        let asked: BTreeSet<&str> = list.split(',').map(|name| name.trim().trim_matches('"')).collect();
        assert_eq!(asked, FILES.iter().map(|(path, _)| *path).collect());
    }
}
