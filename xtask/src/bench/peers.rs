//! Who is compared: how each is configured, from the same few facts, to do its best with hits in memory, and what it cannot do.
//! docs/bench.md says the same to people.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench::rows::Row;
use crate::bench::traffic_server;
use crate::shell::{Failed, output_of};

/// Longest silence on a connection that is kept, in seconds: nobody closes one while it is measured.
pub(crate) const IDLE_S: u64 = 3_600;
/// Requests on a connection: more than are ever sent.
const REQUESTS: u64 = 1_000_000_000;
/// Memory for cached bodies, in MiB.
pub(crate) const MEMORY_MIB: u64 = 1_024;
/// Ciphers of TLS 1.3 in the order of their preference: for all servers the same, which is Littoral's own.
pub(crate) const CIPHERS: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
/// What varnish says into its log about a hit, which nobody reads here.
const VARNISH_TAGS: &str = "SessOpen SessClose Begin End Link Timestamp Filters Hit Length ReqStart ReqMethod ReqURL ReqProtocol ReqHeader ReqUnset \
                            ReqAcct RespProtocol RespStatus RespReason RespHeader RespUnset VCL_call VCL_return VCL_use VCL_acl VCL_Log HitMiss \
                            HitPass Storage TTL";

/// A server of the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    Littoral,
    /// The edge with eviction off, in the rows that show what it costs: no peer to be compared with.
    LittoralKeeps,
    /// With `sendfile`.
    Nginx,
    /// Without it.
    NginxCopy,
    Haproxy,
    Varnish,
    TrafficServer,
}

/// What a server is to be.
pub(crate) struct Site {
    /// Its own folder, in memory (tmpfs) if there is such a one, which other users may enter.
    pub(crate) folder: PathBuf,
    pub(crate) origin: SocketAddr,
    pub(crate) plain: SocketAddr,
    /// Where it speaks TLS, if it is to.
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) workers: usize,
    /// How many connections it must be able to keep.
    pub(crate) connections: usize,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    /// The edge's program.
    pub(crate) binary: PathBuf,
}

impl Site {
    /// Writes a file into the folder and answers its path as text.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String, Failed> {
        let path = self.folder.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    }
}

impl Peer {
    pub(crate) const ALL: [Self; 7] = [
        Self::Littoral,
        Self::LittoralKeeps,
        Self::Nginx,
        Self::NginxCopy,
        Self::Haproxy,
        Self::Varnish,
        Self::TrafficServer,
    ];

    /// Whether it is an edge.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Self::Littoral | Self::LittoralKeeps)
    }

    /// Whether it is asked in a row.
    pub(crate) fn is_in(self, row: &Row) -> bool {
        self != Self::LittoralKeeps || row.shows_eviction()
    }

    /// As `--peers` names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Littoral => "littoral",
            Self::LittoralKeeps => "littoral-keeps",
            Self::Nginx => "nginx",
            Self::NginxCopy => "nginx-copy",
            Self::Haproxy => "haproxy",
            Self::Varnish => "varnish",
            Self::TrafficServer => "trafficserver",
        }
    }

    /// As the table names it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Littoral => "Littoral",
            Self::LittoralKeeps => "Littoral, eviction off",
            Self::Nginx => "nginx",
            Self::NginxCopy => "nginx, no sendfile",
            Self::Haproxy => "HAProxy",
            Self::Varnish => "Varnish",
            Self::TrafficServer => "Traffic Server",
        }
    }

    /// The Debian package that has it; the edge is built here.
    pub(crate) fn package(self) -> Option<&'static str> {
        match self {
            Self::Littoral | Self::LittoralKeeps => None,
            Self::Nginx | Self::NginxCopy => Some("nginx-light"),
            Self::Haproxy => Some("haproxy"),
            Self::Varnish => Some("varnish"),
            Self::TrafficServer => Some("trafficserver"),
        }
    }

    /// Its version.
    pub(crate) fn version(self, binary: &Path) -> Result<String, Failed> {
        let Some(package) = self.package() else {
            return Ok(output_of(Command::new(binary).arg("--version"))?.trim().to_owned());
        };
        let version = output_of(Command::new("dpkg-query").args(["-W", "-f=${Version}", package]))?;
        Ok(format!("{} {version}", self.title()))
    }

    /// Why it cannot speak TLS.
    pub(crate) fn without_tls(self) -> Option<&'static str> {
        (self == Self::Varnish).then_some("it does not speak TLS")
    }

    /// Writes its configuration, and answers what starts it in the foreground.
    pub(crate) fn prepare(self, site: &Site) -> Result<Command, Failed> {
        match self {
            Self::Littoral => littoral(site, "auto"),
            Self::LittoralKeeps => littoral(site, "none"),
            Self::Nginx => nginx(site, "on"),
            Self::NginxCopy => nginx(site, "off"),
            Self::Haproxy => haproxy(site),
            Self::Varnish => varnish(site),
            Self::TrafficServer => traffic_server::prepare(site),
        }
    }
}

/// The part of the requests that the edge's access log has.
const ACCESS_LOG_SAMPLE: &str = "0.01";

/// What `littoral edge` is started with: limits and metrics as they are when nobody says otherwise, and an access log of a
/// part of the requests, where the peers have none.
fn littoral(site: &Site, eviction: &str) -> Result<Command, Failed> {
    let mut command = Command::new(&site.binary);
    command.args(["edge", "--upstream", &format!("http://{}", site.origin), "--policy", "rfc"]);
    command.args(["--eviction", eviction]);
    command.args(["--listen", &site.plain.to_string(), "--memory", &format!("{MEMORY_MIB}MiB")]);
    command.args(["--threads", &site.workers.to_string(), "--access-log-sample", ACCESS_LOG_SAMPLE, "--access-log"]);
    command.arg(site.folder.join("access.json"));
    if let Some(tls) = site.tls {
        command.args(["--tls-listen", &tls.to_string(), "--cert"]).arg(&site.cert).arg("--key").arg(&site.key);
    }
    Ok(command)
}

fn nginx(site: &Site, sendfile: &str) -> Result<Command, Failed> {
    let Site { folder, origin, plain, workers, connections, cert, key, .. } = site;
    let root = folder.display();
    let tls = site.tls.map_or_else(String::new, |tls| {
        format!(
            "listen {tls} ssl http2 reuseport backlog=4096; ssl_protocols TLSv1.3;\n\
             ssl_prefer_server_ciphers on; ssl_conf_command Ciphersuites {CIPHERS};\n\
             ssl_certificate {}; ssl_certificate_key {};",
            cert.display(),
            key.display()
        )
    });
    let conf = format!(
        "daemon off; worker_processes {workers}; pid {root}/pid; error_log {root}/error.log;\n\
         events {{ worker_connections {connections}; }}\n\
         http {{ access_log off; sendfile {sendfile};\n\
         keepalive_timeout {IDLE_S}s; keepalive_requests {REQUESTS};\n\
         open_file_cache max=20000 inactive=1h; open_file_cache_valid 1h;\n\
         client_body_temp_path {root}/body; proxy_temp_path {root}/temp; fastcgi_temp_path {root}/fastcgi;\n\
         uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
         proxy_cache_path {root}/cache levels=1:2 use_temp_path=off keys_zone=k:64m max_size={MEMORY_MIB}m inactive=1h;\n\
         upstream origin {{ server {origin}; keepalive 64; }}\n\
         server {{ listen {plain} reuseport backlog=4096; {tls}\n\
         location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_cache k; }} }} }}\n"
    );
    let conf = site.write("nginx.conf", &conf)?;
    let mut command = Command::new("nginx");
    command.args(["-p", &root.to_string(), "-e", &format!("{root}/error.log"), "-c", &conf]);
    Ok(command)
}

fn haproxy(site: &Site) -> Result<Command, Failed> {
    let Site { origin, plain, workers, connections, cert, key, .. } = site;
    let tls = match site.tls {
        None => String::new(),
        Some(tls) => {
            let pem = site.write("site.pem", &(std::fs::read_to_string(cert)? + &std::fs::read_to_string(key)?))?;
            format!(" bind {tls} ssl crt {pem} alpn h2,http/1.1\n")
        }
    };
    let conf = format!(
        "global\n no strict-limits\n maxconn {connections}\n nbthread {workers}\n\
         \x20ssl-default-bind-options ssl-min-ver TLSv1.3\n\
         \x20ssl-default-bind-ciphersuites {CIPHERS}\n\
         defaults\n mode http\n timeout client {IDLE_S}s\n timeout http-keep-alive {IDLE_S}s\n timeout server 60s\n timeout connect 5s\n\
         cache k\n total-max-size {MEMORY_MIB}\n max-object-size {}\n max-age 86400\n\
         frontend f\n bind {plain}\n{tls} http-request cache-use k\n http-response cache-store k\n default_backend b\n\
         backend b\n server o {origin}\n",
        MEMORY_MIB / 2 * (1 << 20)
    );
    let conf = site.write("haproxy.cfg", &conf)?;
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f", &conf]);
    Ok(command)
}

fn varnish(site: &Site) -> Result<Command, Failed> {
    let (host, port) = (site.origin.ip(), site.origin.port());
    let vcl = format!("vcl 4.1;\nbackend default {{ .host = \"{host}\"; .port = \"{port}\"; }}\n");
    let vcl = site.write("site.vcl", &vcl)?;
    let mask: Vec<String> = VARNISH_TAGS.split_whitespace().map(|tag| format!("-{tag}")).collect();
    let mut command = Command::new("varnishd");
    command.args(["-F", "-T", "none", "-f", &vcl, "-a", &site.plain.to_string(), "-n"]);
    command.arg(site.folder.join("varnish")).args(["-s", &format!("malloc,{MEMORY_MIB}M")]);
    command.args(["-p", &format!("thread_pools={}", site.workers), "-p", &format!("timeout_idle={IDLE_S}")]);
    command.args(["-p", &format!("vsl_mask={}", mask.join(","))]);
    Ok(command)
}
