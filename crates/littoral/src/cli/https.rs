//! The flags by which a zone says how it treats TLS.

use api::{HstsDoc, TlsDoc};
use clap::{ArgAction, Args};

use crate::cli::error::CliError;
use crate::cli::policy_values::{Emptied, hsts};

/// The flags.
#[derive(Debug, Clone, Default, Args)]
pub struct HttpsArgs {
    /// Whether plain requests are sent to https:// (GET and HEAD with 301, others with 308)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub https_redirect: Option<bool>,
    /// Port that they are sent to; 0: the one that TLS is spoken on, else 443
    #[arg(long, value_name = "PORT")]
    pub https_port: Option<u16>,
    /// How long browsers are told to use https:// by themselves (HSTS), like 365d, with ',subdomains' and ',preload'; empty: not at all
    #[arg(long, value_name = "DURATION[,subdomains][,preload]", value_parser = hsts)]
    pub hsts: Option<Emptied<HstsDoc>>,
}

impl HttpsArgs {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.https_redirect.is_none() && self.https_port.is_none() && self.hsts.is_none()
    }

    /// Changes `tls` where something was said.
    ///
    /// # Errors
    /// What was said cannot be meant.
    pub fn apply(self, tls: Option<TlsDoc>) -> Result<Option<TlsDoc>, CliError> {
        let mut doc = tls.unwrap_or_default();
        doc.redirect = self.https_redirect.unwrap_or(doc.redirect);
        if let Some(port) = self.https_port {
            doc.port = (port != 0).then_some(port);
        }
        if let Some(hsts) = self.hsts {
            doc.hsts = hsts.value();
        }
        doc.validate().map_err(|why| CliError::usage(format!("tls.{why}")))?;
        Ok((doc != TlsDoc::default()).then_some(doc))
    }
}

/// What a zone says, for people.
pub fn shown(tls: &TlsDoc) -> Vec<(&'static str, String)> {
    let port = tls.port.map_or_else(String::new, |port| format!(", to port {port}"));
    let mut lines = vec![("https redirect", format!("{}{port}", tls.redirect))];
    lines.extend(tls.hsts.as_ref().map(|hsts| ("hsts", hsts.value())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: HttpsArgs,
    }

    fn applied(line: &str, tls: Option<TlsDoc>) -> Result<Option<TlsDoc>, String> {
        let line =
            Line::try_parse_from(std::iter::once("zones").chain(line.split(' ').filter(|word| !word.is_empty())));
        line.map_err(|error| error.to_string())?.args.apply(tls).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_change_what_they_name() {
        assert_eq!(applied("", None), Ok(None));
        let redirecting = applied("--https-redirect", None).expect("good").expect("something");
        assert_eq!(redirecting, TlsDoc { redirect: true, ..TlsDoc::default() });
        let all = applied("--hsts 365d,subdomains,preload --https-port 8443", Some(redirecting)).expect("good");
        let all = all.expect("something");
        assert_eq!(
            all.hsts.as_ref().map(HstsDoc::value).as_deref(),
            Some("max-age=31536000; includeSubDomains; preload")
        );
        assert_eq!((all.redirect, all.port), (true, Some(8443)));
        assert!(shown(&all).iter().any(|(_, text)| text == "true, to port 8443"));
        assert_eq!(applied("--hsts= --https-port 0 --https-redirect false", Some(all)), Ok(None));
        for (line, expected) in [
            ("--hsts soon", "like 45s"),
            ("--hsts 1d,everything", "subdomains"),
            ("--hsts 1d,preload", "include_subdomains"),
            ("--hsts 4000d", "ten years"),
            ("--https-redirect maybe", "true"),
        ] {
            let error = applied(line, None).expect_err(line);
            assert!(error.contains(expected), "{line}: {error}");
        }
    }
}
