//! The options that every command takes, and how address and token are found: flags over environment over data folder.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use api::TokenSecret;
use clap::Args;
use http::Uri;
use serde::{Deserialize, Serialize};

use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::output::{Color, Format, Out};
use crate::cli::session::Session;

/// The data folder when nothing else is said.
pub const DEFAULT_DATA_DIR: &str = "./littoral-data";
/// In the data folder: the addresses of the CDN that runs on it, as [`RunFile`].
pub const RUN_FILE: &str = "run.json";
/// In the data folder: the secret of the administrator's token.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

const ENV_API: &str = "LITTORAL_API";
const ENV_TOKEN: &str = "LITTORAL_TOKEN";
const ENV_TOKEN_FILE: &str = "LITTORAL_TOKEN_FILE";
const ENV_DATA_DIR: &str = "LITTORAL_DATA_DIR";

/// Longest file that is read for an address or a token, in bytes.
const MAX_SMALL_FILE_BYTES: u64 = 64 << 10;

/// The options that every command takes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// Address of the API, like http://127.0.0.1:8600 [env: LITTORAL_API]
    #[arg(long, global = true, value_name = "URL")]
    pub api: Option<String>,

    /// File that holds the token [env: LITTORAL_TOKEN_FILE; LITTORAL_TOKEN for the token itself]
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// Folder of a CDN on this machine, where address and token are found [env: LITTORAL_DATA_DIR; default: ./littoral-data]
    #[arg(long, global = true, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,

    /// Form of what is printed: table or json
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum, default_value_t, hide_possible_values = true)]
    pub output: Format,

    /// Neither progress nor summary
    #[arg(short, long, global = true)]
    pub quiet: bool,

    /// When to colour messages: auto, always or never; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t, hide_possible_values = true)]
    pub color: Color,
}

/// What `up` writes into the data folder once it runs, so that other commands find it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// Address of the API.
    pub api: String,
    /// Address of the router.
    pub router: String,
    /// Address of the admin listener.
    pub admin: String,
    /// The process.
    pub pid: u32,
}

impl Globals {
    /// The data folder: the flag, else the environment, else [`DEFAULT_DATA_DIR`]. It need not exist.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir_in(&environment)
    }

    /// Where to print.
    pub fn out(&self) -> Out {
        Out { format: self.output, quiet: self.quiet, color: self.color.on_stderr() }
    }

    /// The address and the token to present. That there is no token is no error here: reading public files needs none.
    ///
    /// # Errors
    /// No address, one that is not a URL, or a file that cannot be read.
    pub fn session(&self) -> Result<Session, CliError> {
        self.session_in(&environment)
    }

    /// The token to present, if there is one, and in words where it was found or looked for.
    ///
    /// # Errors
    /// A file that cannot be read, or holds no token.
    pub fn token(&self) -> Result<(Option<TokenSecret>, String), CliError> {
        self.find_token(&self.data_dir(), &environment)
    }

    /// The address of an admin listener, and in words where it was found: `said` by a flag, else in the run file of `up`, else
    /// the usual port of this machine.
    ///
    /// # Errors
    /// One that is not a URL, or a file that cannot be read.
    pub fn admin(&self, said: Option<&str>) -> Result<(String, String), CliError> {
        let (admin, from) = match (said, self.run_file(&self.data_dir())?) {
            (Some(admin), _) => (admin.to_owned(), "--admin".to_owned()),
            (None, Some((run, shown))) => (run.admin, shown),
            (None, None) => {
                let port = crate::local::DEFAULT_PORT_BASE + crate::local::ADMIN_OFFSET;
                (format!("http://127.0.0.1:{port}"), "the usual port, because nothing else is said".to_owned())
            }
        };
        Ok((check_address(&admin, &from)?, from))
    }

    /// What `up` has written into a data folder, and the name of that file.
    fn run_file(&self, data_dir: &Path) -> Result<Option<(RunFile, String)>, CliError> {
        let path = data_dir.join(RUN_FILE);
        let shown = human::file_name(&path);
        let Some(text) = read_small(&path)? else { return Ok(None) };
        let run = serde_json::from_str(&text).map_err(|error| {
            CliError::failed(format!("{shown} is not what 'littoral up' writes: {error}"))
                .with_hint("start 'littoral up' again, or name the address with a flag")
        })?;
        Ok(Some((run, shown)))
    }

    fn data_dir_in(&self, env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
        let named = self.data_dir.clone().or_else(|| env(ENV_DATA_DIR).map(PathBuf::from));
        named.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR))
    }

    fn session_in(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Session, CliError> {
        let data_dir = self.data_dir_in(env);
        let (api, api_from) = self.find_api(&data_dir, env)?;
        let api = check_address(&api, &api_from)?;
        let (token, token_from) = self.find_token(&data_dir, env)?;
        Ok(Session::new(&api, api_from, token, token_from))
    }

    /// The address, and in words where it was found.
    fn find_api(&self, data_dir: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<(String, String), CliError> {
        if let Some(api) = &self.api {
            return Ok((api.clone(), "--api".to_owned()));
        }
        if let Some(api) = env(ENV_API) {
            return Ok((api, ENV_API.to_owned()));
        }
        let Some((run, shown)) = self.run_file(data_dir)? else {
            let shown = human::file_name(&data_dir.join(RUN_FILE));
            return Err(CliError::failed("the address of the API is not known").with_hint(format!(
                "looked at --api, at {ENV_API} and for the file {shown}; start a CDN with 'littoral up', or name its \
                 address with --api or its data folder with --data-dir"
            )));
        };
        Ok((run.api, shown))
    }

    /// The token, and in words where it was found or where it was looked for.
    fn find_token(
        &self,
        data_dir: &Path,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(Option<TokenSecret>, String), CliError> {
        if let Some(path) = &self.token_file {
            return named_token(path, "--token-file");
        }
        if let Some(text) = env(ENV_TOKEN) {
            return Ok((Some(parse_token(&text, ENV_TOKEN)?), ENV_TOKEN.to_owned()));
        }
        if let Some(path) = env(ENV_TOKEN_FILE) {
            return named_token(Path::new(&path), ENV_TOKEN_FILE);
        }
        let path = data_dir.join(ADMIN_TOKEN_FILE);
        let shown = human::file_name(&path);
        match read_small(&path)? {
            Some(text) => Ok((Some(parse_token(&text, &shown)?), shown)),
            None => Ok((None, format!("--token-file, at {ENV_TOKEN} and {ENV_TOKEN_FILE}, and for the file {shown}"))),
        }
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address without a trailing slash, if it is one that can be spoken to.
fn check_address(api: &str, from: &str) -> Result<String, CliError> {
    let bad = |why: &str| {
        CliError::usage(format!("{from}: {:?} is not an address: {why}", human::plain(api)))
            .with_hint("write it like http://127.0.0.1:8600")
    };
    let uri: Uri = api.trim_end_matches('/').parse().map_err(|_| bad("it is not a URL"))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err(bad("https is not spoken by this version")),
        _ => return Err(bad("it does not begin with http://")),
    }
    if uri.path().trim_matches('/').is_empty() && uri.query().is_none() {
        Ok(api.trim_end_matches('/').to_owned())
    } else {
        Err(bad("it has a path"))
    }
}

fn named_token(path: &Path, from: &str) -> Result<(Option<TokenSecret>, String), CliError> {
    let shown = human::file_name(path);
    let text = read_small(path)?.ok_or_else(|| {
        CliError::failed(format!("there is no file {shown}")).with_hint(format!("it was named by {from}"))
    })?;
    Ok((Some(parse_token(&text, &shown)?), shown))
}

fn parse_token(text: &str, from: &str) -> Result<TokenSecret, CliError> {
    TokenSecret::parse(text.trim()).map_err(|error| CliError::failed(format!("{from}: {error}")))
}

/// The text of a small file; nothing when it does not exist.
fn read_small(path: &Path) -> Result<Option<String>, CliError> {
    let shown = human::file_name(path);
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_SMALL_FILE_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > MAX_SMALL_FILE_BYTES => {
            Err(CliError::failed(format!("{shown} is larger than {MAX_SMALL_FILE_BYTES} bytes: not what it should be")))
        }
        Ok(_) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::failed(format!("cannot read {shown}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where address and token come from, for these flags and this environment.
    fn check(globals: &Globals, env: &[(&str, &str)]) -> Result<(String, String), String> {
        let find = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let session = globals.session_in(&find).map_err(|error| error.report(false))?;
        Ok((session.connection().calls.base_url().to_owned(), session.token_from().to_owned()))
    }

    fn folder(run: Option<&str>, token: Option<&str>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for (name, text) in [(RUN_FILE, run), (ADMIN_TOKEN_FILE, token)] {
            if let Some(text) = text {
                std::fs::write(folder.path().join(name), text).expect("write");
            }
        }
        folder
    }

    const RUN: &str = r#"{"api":"http://folder:1","router":"http://r","admin":"http://a","pid":1,"more":2}"#;

    #[test]
    fn flags_over_environment_over_data_folder() {
        let data = folder(Some(RUN), Some("lit_folder\n"));
        let other = folder(None, Some("lit_other"));
        let token_file = other.path().join(ADMIN_TOKEN_FILE);
        let from_folder = Globals { data_dir: Some(data.path().into()), ..Globals::default() };
        let in_folder = human::file_name(&data.path().join(ADMIN_TOKEN_FILE));

        let found = check(&from_folder, &[]).expect("folder");
        assert_eq!(found, ("http://folder:1".to_owned(), in_folder.clone()));
        let env = [(ENV_DATA_DIR, data.path().to_str().expect("UTF-8"))];
        assert_eq!(check(&Globals::default(), &env).expect("environment"), found);

        let env = [(ENV_API, "http://env:1/"), (ENV_TOKEN, "lit_env"), (ENV_TOKEN_FILE, "/nowhere")];
        assert_eq!(check(&from_folder, &env).expect("environment"), ("http://env:1".to_owned(), ENV_TOKEN.to_owned()));

        let flags = Globals { api: Some("http://flag:1".into()), token_file: Some(token_file.clone()), ..from_folder };
        let shown = human::file_name(&token_file);
        assert_eq!(check(&flags, &env).expect("flags"), ("http://flag:1".to_owned(), shown));
    }

    #[test]
    fn what_is_missing_or_wrong_is_said_without_the_secret() {
        let empty = folder(None, None);
        let nothing = Globals { data_dir: Some(empty.path().into()), ..Globals::default() };
        let error = check(&nothing, &[]).expect_err("no address");
        for place in ["--api", ENV_API, RUN_FILE, "littoral up"] {
            assert!(error.contains(place), "{place}: {error}");
        }
        let api = |text: &str| Globals { api: Some(text.into()), ..nothing.clone() };
        let (_, looked) = check(&api("http://x:1"), &[]).expect("no token is fine");
        assert!(looked.contains("--token-file") && looked.contains(ENV_TOKEN) && looked.contains(ADMIN_TOKEN_FILE));

        for bad in ["127.0.0.1:8600", "https://x", "http://x/v1", "ftp://x", "http://", "a b", ""] {
            let error = check(&api(bad), &[]).expect_err(bad);
            assert!(error.contains("write it like http://"), "{bad}: {error}");
        }
        let error = check(&api("http://x"), &[(ENV_TOKEN, "secret with spaces")]).expect_err("token");
        assert!(error.contains(ENV_TOKEN) && !error.contains("secret"), "{error}");
        let error = check(&api("http://x"), &[(ENV_TOKEN_FILE, "/nowhere/at/all")]).expect_err("token file");
        assert!(error.contains("/nowhere/at/all") && error.contains(ENV_TOKEN_FILE), "{error}");
        let broken = folder(Some("{"), None);
        let error = check(&Globals { data_dir: Some(broken.path().into()), ..Globals::default() }, &[]);
        assert!(error.expect_err("broken").contains("is not what 'littoral up' writes"));
    }
}
