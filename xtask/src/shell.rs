//! Running other programs, and saying how it went.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

/// Why a step failed, as a sentence.
#[derive(Debug)]
pub(crate) struct Failed(pub(crate) String);

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs a named step and prints how long it took.
pub(crate) fn step(name: &str, run: impl FnOnce() -> Result<(), Failed>) -> Result<(), Failed> {
    println!("== {name}");
    let begun = Instant::now();
    run().map_err(|Failed(why)| Failed(format!("step '{name}': {why}")))?;
    println!("== {name}: ok after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Runs a program to its end; its output goes where ours goes.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), Failed> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root()).stdin(Stdio::null());
    let status = command.status().map_err(|error| Failed(format!("cannot run {program}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failed(format!("{program} {} ended with {status}", arguments.join(" "))))
}

/// What a program says, once it has ended well.
pub(crate) fn output_of(command: &mut Command) -> Result<String, Failed> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| Failed(format!("cannot run {program}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Failed(format!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr))))
}

/// A shell command in a network namespace that has only loopback. Whoever is not root becomes it in a user namespace. More may
/// be asked of `unshare` by arguments before the last, which is the script.
pub(crate) fn alone_in_network(more: &[&str], script: &str) -> Result<Command, Failed> {
    let allowed = Command::new("unshare").args(["--net", "true"]).stderr(Stdio::null()).status()?.success();
    let mut command = Command::new("unshare");
    command.args(if allowed { &[][..] } else { &["--map-root-user"][..] }).arg("--net").args(more);
    command.args(["sh", "-c", &format!("ip link set lo up && {script}")]);
    Ok(command)
}

/// Set where a command runs in a network namespace of its own.
const ALONE: &str = "LITTORAL_ALONE";

/// Begins this command anew in a network namespace of its own, unless it runs in one: nobody else's traffic is there, and the
/// machine's own settings stay as they are.
///
/// The congestion control is CUBIC, the one that Linux comes with, or Reno where the machine does not allow another. One that works from a model of the path, such as BBR, has no path to
/// measure over loopback: it paces and resends by chance, and a body of 100 MiB then costs every server five times as much.
pub(crate) fn in_a_namespace() -> Result<(), Failed> {
    if std::env::var_os(ALONE).is_some() {
        return Ok(());
    }
    let script = "f=/proc/sys/net/ipv4/tcp_congestion_control; case $(cat $f) in cubic|reno) ;; \
                  *) echo cubic 2>/dev/null >$f || echo reno >$f ;; esac && exec \"$0\" \"$@\"; \
                  echo 'FAILED: no network namespace to measure in; with LITTORAL_ALONE=1 it is measured here' >&2; exit 1";
    let mut command = alone_in_network(&[], script)?;
    let error = command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).env(ALONE, "1").exec();
    Err(Failed(format!("cannot run unshare, for a network namespace: {error}")))
}

/// Runs a script with node to its end, alone: in a network namespace, and in a process namespace, so that nothing outlives it.
/// The script's settings are the text of an environment variable; its input ends when we do.
pub(crate) fn alone(script: &Path, settings: (&str, String)) -> Result<ExitStatus, Failed> {
    let mut child = alone_in_network(&["--pid", "--fork", "--kill-child"], "exec node --no-warnings \"$0\"")?
        .arg(script)
        .env(settings.0, settings.1)
        .stdin(Stdio::piped())
        .spawn()?;
    let held = child.stdin.take();
    let status = child.wait()?;
    drop(held);
    Ok(status)
}

/// Runs cargo.
pub(crate) fn cargo(arguments: &[&str]) -> Result<(), Failed> {
    run(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()), arguments)
}

/// Installs Debian packages that are not there yet. Services among them are not started: tests start what they need themselves.
pub(crate) fn install(packages: &[&str]) -> Result<(), Failed> {
    let there = |package: &&&str| {
        let query = ["-W", "-f=${db:Status-Status}", package];
        Command::new("dpkg-query").args(query).output().is_ok_and(|output| output.stdout == b"installed")
    };
    let missing: Vec<&str> = packages.iter().filter(|package| !there(package)).copied().collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(", "));
    run("apt-get", &["-q", "update"])?;
    let _no_services = NoServices::begin()?;
    let arguments: Vec<&str> = ["-q", "-y", "--no-install-recommends", "install"].into_iter().chain(missing).collect();
    run("apt-get", &arguments)
}

/// Debian asks this program whether a package may start its service.
const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

/// While it lives, packages do not start services. The policy that a machine has of its own stays.
struct NoServices {
    ours: bool,
}

impl NoServices {
    fn begin() -> Result<Self, Failed> {
        let ours = !Path::new(SERVICE_POLICY).exists();
        if ours {
            std::fs::write(SERVICE_POLICY, "#!/bin/sh\nexit 101\n")?;
            std::fs::set_permissions(SERVICE_POLICY, PermissionsExt::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            let _ = std::fs::remove_file(SERVICE_POLICY);
        }
    }
}

/// The folder of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned()
}

/// A folder below `target/`, made if need be.
pub(crate) fn target(name: &str) -> Result<PathBuf, Failed> {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Builds the release binary and answers where it is.
pub(crate) fn release_binary() -> Result<PathBuf, Failed> {
    cargo(&["build", "--release", "--package", "littoral"])?;
    Ok(target("release")?.join("littoral"))
}
