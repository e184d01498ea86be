//! From the arguments of `put` to what is uploaded where: decided without any I/O but looking what kind a name is.
//!
//! One file goes to the path that is named, or under its own name; the content of one folder goes below the prefix that
//! is named. Several sources go, each under its own name, into the folder that is named. Without `--to`, the last of
//! several arguments is the destination if it can be nothing else: it ends in `/`, names a zone, or (the second of two)
//! does not exist here. So a shell pattern that happens to match two files never renames one into the other.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use api::{FileId, FilePath, ZoneName};
use client::Upload;

use crate::cli::error::CliError;
use crate::cli::human;
use crate::cli::values::{Remote, names_zone};

/// What an argument is on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A folder.
    Folder,
    /// Anything else that exists.
    File,
    /// Nothing.
    Missing,
}

/// One thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Upload a file.
    File(PathBuf, Upload),
    /// Upload what is in a folder, below a prefix of a zone.
    Folder(PathBuf, ZoneName, String),
    /// Upload standard input.
    Stdin(Upload),
}

/// What the arguments say, beside the sources.
#[derive(Debug, Default)]
pub(super) struct Wishes<'a> {
    /// `--to`
    pub(super) to: Option<&'a str>,
    /// `--zone`
    pub(super) zone: Option<&'a ZoneName>,
    /// `--generate`
    pub(super) generate: bool,
    /// `--id`
    pub(super) id: Option<FileId>,
}

/// Which tasks `arguments` mean.
///
/// # Errors
/// They cannot be meant, or a source does not exist.
pub(super) fn plan(
    arguments: &[OsString],
    wishes: &Wishes<'_>,
    kind: &dyn Fn(&Path) -> Kind,
) -> Result<Vec<Task>, CliError> {
    let (sources, destination) = split(arguments, wishes, kind)?;
    let destination = Remote::parse(&destination.unwrap_or_default(), wishes.zone)?;
    if let Some(missing) = sources.iter().find(|s| *s != "-" && kind(Path::new(s)) == Kind::Missing) {
        return Err(CliError::failed(format!("there is no file {}", human::file_name(Path::new(missing)))));
    }
    if wishes.generate || wishes.id.is_some() {
        return by_wish(sources, wishes, &destination, kind);
    }
    match sources {
        [one] => single(one, &destination, kind).map(|task| vec![task]),
        many => several(many, &destination, kind),
    }
}

/// Tells sources from destination.
fn split<'a>(
    arguments: &'a [OsString],
    wishes: &Wishes<'_>,
    kind: &dyn Fn(&Path) -> Kind,
) -> Result<(&'a [OsString], Option<String>), CliError> {
    let (Some((last, sources)), None) = (arguments.split_last(), wishes.to) else {
        return Ok((arguments, wishes.to.map(str::to_owned)));
    };
    if sources.is_empty() || last == "-" {
        return Ok((arguments, None));
    }
    let text = last.to_str().unwrap_or_default();
    if text.ends_with('/') || names_zone(text, wishes.zone) {
        return Ok((sources, Some(text.to_owned())));
    }
    match (kind(Path::new(last)), sources) {
        (Kind::Missing, [_]) if !text.is_empty() => Ok((sources, Some(text.to_owned()))),
        (Kind::Missing, _) => {
            let name = human::file_name(Path::new(last));
            let error = CliError::usage(format!("there is no file {name:?} here"));
            Err(error.with_hint("to name a folder of the zone as the destination, end it with '/' or use --to"))
        }
        _ => Ok((arguments, None)),
    }
}

/// `--generate` and `--id`: the path is not ours to choose.
fn by_wish(
    sources: &[OsString],
    wishes: &Wishes<'_>,
    destination: &Remote,
    kind: &dyn Fn(&Path) -> Kind,
) -> Result<Vec<Task>, CliError> {
    let option = if wishes.generate { "--generate" } else { "--id" };
    if !destination.text.is_empty() {
        return Err(CliError::usage(format!("{option} and a path cannot be used together")));
    }
    if wishes.id.is_some() && sources.len() > 1 {
        return Err(CliError::usage("--id takes one file"));
    }
    let task = |source: &OsString| {
        let disk = PathBuf::from(source);
        let name = disk.file_name().and_then(OsStr::to_str).filter(|_| source != "-").map(str::to_owned);
        let to = match wishes.id {
            Some(id) => Upload::Id(id),
            None => Upload::Generated(destination.zone.clone(), name),
        };
        if source == "-" {
            return Ok(Task::Stdin(to));
        }
        match kind(&disk) {
            Kind::Folder => {
                Err(CliError::usage(format!("{option} takes files; {} is a folder", human::file_name(&disk))))
            }
            _ => Ok(Task::File(disk, to)),
        }
    };
    sources.iter().map(task).collect()
}

fn single(source: &OsString, destination: &Remote, kind: &dyn Fn(&Path) -> Kind) -> Result<Task, CliError> {
    let zone = destination.zone.clone();
    if source == "-" {
        if destination.is_folder() {
            return Err(CliError::usage("standard input has no name of its own")
                .with_hint("name the path: littoral put - notes/today.txt"));
        }
        return Ok(Task::Stdin(Upload::Path(zone, destination.path()?)));
    }
    let disk = PathBuf::from(source);
    if kind(&disk) == Kind::Folder {
        return Ok(Task::Folder(disk, zone, destination.text.clone()));
    }
    let path = if destination.is_folder() { own_path(&disk, destination)? } else { destination.path()? };
    Ok(Task::File(disk, Upload::Path(zone, path)))
}

fn several(sources: &[OsString], destination: &Remote, kind: &dyn Fn(&Path) -> Kind) -> Result<Vec<Task>, CliError> {
    if !destination.is_folder() {
        let text = &destination.text;
        return Err(CliError::usage(format!("several sources cannot all become {text:?}"))
            .with_hint(format!("to put them into a folder of that name, write '{text}/'")));
    }
    let mut taken = HashSet::new();
    let mut tasks = Vec::new();
    for source in sources {
        if source == "-" {
            return Err(CliError::usage("standard input cannot be put together with other sources"));
        }
        let disk = PathBuf::from(source);
        // A folder like `.` or `..` has no name of its own.
        let path = match disk.file_name() {
            Some(_) => own_path(&disk, destination)?.to_string(),
            None => destination.text.clone(),
        };
        if !taken.insert(path.clone()) {
            return Err(CliError::usage(format!("two of the sources would become {path:?}"))
                .with_hint("upload them one by one, each with its destination, or use --to"));
        }
        let zone = destination.zone.clone();
        tasks.push(match kind(&disk) {
            Kind::Folder => Task::Folder(disk, zone, path),
            _ => Task::File(disk, Upload::Path(zone, path.parse()?)),
        });
    }
    Ok(tasks)
}

/// The path of a local file or folder, under its own name, in a folder of the zone.
fn own_path(disk: &Path, destination: &Remote) -> Result<FilePath, CliError> {
    let Some(name) = disk.file_name().and_then(OsStr::to_str) else {
        let name = human::file_name(disk);
        return Err(CliError::usage(format!("the name of {name} is not UTF-8")).with_hint("name a path with --to"));
    };
    Ok(destination.join(name)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names in capitals are folders, names that begin with `no` do not exist, the rest are files.
    fn kind(path: &Path) -> Kind {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or("DOT");
        if name.starts_with("no") {
            Kind::Missing
        } else if name.chars().all(|c| c.is_ascii_uppercase()) {
            Kind::Folder
        } else {
            Kind::File
        }
    }

    fn shown(task: &Task) -> String {
        let to = |upload: &Upload| match upload {
            Upload::Path(zone, path) => format!("{zone}:{path}"),
            Upload::Id(_) => "id".to_owned(),
            Upload::Generated(zone, name) => format!("{zone}?{}", name.as_deref().unwrap_or("-")),
        };
        match task {
            Task::File(disk, upload) => format!("{}>{}", disk.display(), to(upload)),
            Task::Folder(disk, zone, prefix) => format!("{}>{zone}:{prefix}*", disk.display()),
            Task::Stdin(upload) => format!("->{}", to(upload)),
        }
    }

    fn check_with(arguments: &str, wishes: &Wishes<'_>, expected: &str) {
        let arguments: Vec<OsString> = arguments.split(' ').map(OsString::from).collect();
        match plan(&arguments, wishes, &kind) {
            Ok(tasks) => {
                let tasks: Vec<String> = tasks.iter().map(shown).collect();
                assert_eq!(tasks.join(" "), expected, "{arguments:?}");
            }
            Err(error) => assert!(error.report(false).contains(expected), "{arguments:?}: {error}"),
        }
    }

    fn check(arguments: &str, expected: &str) {
        check_with(arguments, &Wishes::default(), expected);
    }

    #[test]
    fn one_source() {
        check("photo.jpg", "photo.jpg>files:photo.jpg");
        check("/tmp/x/photo.jpg", "/tmp/x/photo.jpg>files:photo.jpg");
        check("photo.jpg nowhere.jpg", "photo.jpg>files:nowhere.jpg");
        check("photo.jpg /nowhere.jpg", "photo.jpg>files:nowhere.jpg");
        check("photo.jpg img/", "photo.jpg>files:img/photo.jpg");
        check("photo.jpg img:", "photo.jpg>img:photo.jpg");
        check("photo.jpg img:a/b.jpg", "photo.jpg>img:a/b.jpg");
        check("photo.jpg img:a/", "photo.jpg>img:a/photo.jpg");
        check("- notes/no-today.txt", "->files:notes/no-today.txt");
        check("DIR", "DIR>files:*");
        check("DIR none", "DIR>files:none*");
        check("DIR docs/", "DIR>files:docs/*");
        check(". img:", ".>img:*");
        check("-", "standard input has no name");
        check("- img/", "standard input has no name");
        check("none", "there is no file none");
        check("photo.jpg ../none", "'.' and '..'");
        check("photo.jpg Img:x", "zone name");
    }

    #[test]
    fn several_sources() {
        check("a.jpg b.jpg", "a.jpg>files:a.jpg b.jpg>files:b.jpg");
        check("a.jpg x/b.jpg img/", "a.jpg>files:img/a.jpg x/b.jpg>files:img/b.jpg");
        check("a.jpg DIR img:", "a.jpg>img:a.jpg DIR>img:DIR*");
        check("a.jpg . img:p/", "a.jpg>img:p/a.jpg .>img:p/*");
        check("a.jpg b.jpg none", "end it with '/'");
        check("a.jpg x/a.jpg", "two of the sources would become \"a.jpg\"");
        check("a.jpg - b.jpg", "standard input cannot be put together");
        let to = |to| Wishes { to: Some(to), ..Wishes::default() };
        check_with("a.jpg b.jpg", &to("b.jpg"), "several sources cannot all become");
        check_with("a.jpg b.jpg", &to("/"), "a.jpg>files:a.jpg b.jpg>files:b.jpg");
        check_with("a.jpg", &to("b.jpg"), "a.jpg>files:b.jpg");
        check_with("a.jpg none", &to("x/"), "there is no file none");
    }

    #[test]
    fn zones_ids_and_generated_paths() {
        let zone: ZoneName = "img".parse().expect("zone");
        let in_zone = || Wishes { zone: Some(&zone), ..Wishes::default() };
        check_with("a.jpg none:x", &in_zone(), "a.jpg>img:none:x");
        check_with("a.jpg", &in_zone(), "a.jpg>img:a.jpg");
        let generate = || Wishes { generate: true, ..Wishes::default() };
        check_with("a.jpg", &generate(), "a.jpg>files?a.jpg");
        check_with("-", &generate(), "->files?-");
        check_with("a.jpg b.jpg img:", &generate(), "a.jpg>img?a.jpg b.jpg>img?b.jpg");
        check_with("a.jpg none.jpg", &generate(), "--generate and a path");
        check_with("DIR", &generate(), "DIR is a folder");
        let id =
            || Wishes { id: Some(FileId("019a9f3e-0000-7000-8000-000000000000".parse().expect("id"))), ..in_zone() };
        check_with("a.jpg", &id(), "a.jpg>id");
        check_with("-", &id(), "->id");
        check_with("a.jpg b.jpg", &id(), "--id takes one file");
    }
}
