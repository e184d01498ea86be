//! Traffic Server's configuration: a folder of files of its own, which a `runroot.yaml` leads it to. As root it serves as the
//! user of its package, who must be able to write there.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::bench::peers::{CIPHERS, IDLE_S, MEMORY_MIB, Site};
use crate::shell::Failed;

/// Its user, by Debian.
const USER: &str = "trafficserver";

/// Writes all files, and answers what starts it in the foreground.
pub(crate) fn prepare(site: &Site) -> Result<Command, Failed> {
    let root = site.folder.display();
    for name in ["run", "logs", "cache"] {
        let folder = site.folder.join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777))?;
    }
    let run_root = site.write(
        "runroot.yaml",
        &format!(
            "prefix: /usr\nexec_prefix: /usr\nbindir: /usr/bin\nsbindir: /usr/sbin\nsysconfdir: {root}/etc\n\
             datadir: {root}/cache\nlibdir: /usr/lib/trafficserver\nlibexecdir: /usr/lib/trafficserver/modules\n\
             localstatedir: {root}/run\nruntimedir: {root}/run\nlogdir: {root}/logs\ncachedir: {root}/cache\n\
             includedir: /usr/include\nmandir: /usr/share/man\ninfodir: /usr/share/info\ndocdir: /usr/share/doc\n"
        ),
    )?;
    let mut ports = format!("{}:ip-in={}", site.plain.port(), site.plain.ip());
    if let Some(tls) = site.tls {
        ports.push_str(&format!(" {}:ip-in={}:ssl", tls.port(), tls.ip()));
        // Names without a folder: it looks for both beside each other.
        let files = site.cert.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let name = |path: &std::path::Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        site.write(
            "etc/ssl_multicert.config",
            &format!("dest_ip=* ssl_cert_name={} ssl_key_name={}\n", name(&site.cert), name(&site.key)),
        )?;
        ports.push('\n');
        ports.push_str(&format!(
            "CONFIG proxy.config.ssl.server.cert.path STRING {files}\n\
             CONFIG proxy.config.ssl.server.private_key.path STRING {files}"
        ));
    }
    site.write("etc/records.config", &records(site, &ports))?;
    site.write("etc/remap.config", &format!("map / http://{}/\n", site.origin))?;
    site.write("etc/storage.config", &format!("{root}/cache {}M\n", 2 * MEMORY_MIB))?;
    site.write(
        "etc/ip_allow.yaml",
        "ip_allow:\n  - apply: in\n    ip_addrs: 127.0.0.1\n    action: allow\n    methods: ALL\n",
    )?;
    for name in ["plugin.config", "cache.config", "hosting.config", "parent.config", "volume.config", "splitdns.config"]
    {
        site.write(&format!("etc/{name}"), "")?;
    }
    let mut command = Command::new("traffic_server");
    command.arg(format!("--run-root={run_root}"));
    Ok(command)
}

/// The settings. Bodies of every size may be in its memory; what it keeps in files besides lies on the folder's file system.
fn records(site: &Site, ports: &str) -> String {
    let (workers, memory_bytes) = (site.workers, MEMORY_MIB << 20);
    format!(
        "CONFIG proxy.config.admin.user_id STRING {USER}\n\
         CONFIG proxy.config.http.server_ports STRING {ports}\n\
         CONFIG proxy.config.exec_thread.autoconfig INT 0\n\
         CONFIG proxy.config.exec_thread.limit INT {workers}\n\
         CONFIG proxy.config.accept_threads INT 0\n\
         CONFIG proxy.config.exec_thread.affinity INT 0\n\
         CONFIG proxy.config.log.logging_enabled INT 0\n\
         CONFIG proxy.config.cache.ram_cache.size INT {memory_bytes}\n\
         CONFIG proxy.config.cache.ram_cache_cutoff INT {memory_bytes}\n\
         CONFIG proxy.config.cache.enable_read_while_writer INT 1\n\
         CONFIG proxy.config.net.connections_throttle INT {connections}\n\
         CONFIG proxy.config.net.max_connections_in INT {connections}\n\
         CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT {IDLE_S}\n\
         CONFIG proxy.config.http.transaction_no_activity_timeout_in INT {IDLE_S}\n\
         CONFIG proxy.config.net.default_inactivity_timeout INT {IDLE_S}\n\
         CONFIG proxy.config.http2.no_activity_timeout_in INT {IDLE_S}\n\
         CONFIG proxy.config.http.connect_attempts_timeout INT 5\n\
         CONFIG proxy.config.url_remap.remap_required INT 1\n\
         CONFIG proxy.config.url_remap.pristine_host_hdr INT 1\n\
         CONFIG proxy.config.ssl.TLSv1 INT 0\n\
         CONFIG proxy.config.ssl.TLSv1_1 INT 0\n\
         CONFIG proxy.config.ssl.TLSv1_2 INT 0\n\
         CONFIG proxy.config.ssl.TLSv1_3 INT 1\n\
         CONFIG proxy.config.ssl.server.honor_cipher_order INT 1\n\
         CONFIG proxy.config.ssl.server.TLSv1_3.cipher_suites STRING {CIPHERS}\n\
         CONFIG proxy.config.diags.show_location INT 0\n",
        connections = site.connections
    )
}
