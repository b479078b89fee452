//! nginx inside the namespace, with the configurations that small sites and mirrors get.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use speediso_model::small_site;

use crate::error::{Doing, LabError, Result};
use crate::lab::Lab;
use crate::namespace::GATEWAY;
use crate::process::Process;
use crate::site::Site;
use crate::tool;

/// A running web server. Dropping it ends it.
#[derive(Debug)]
pub struct Web {
    process: Process,
    dir: PathBuf,
}

impl Web {
    /// The boot server of a small site in front of the controller, on port 80; builds and images are served from there.
    pub fn of_site(lab: &Lab, builds: &Path, images: &Path) -> Result<Self> {
        let config = small_site::Web {
            listen: format!("{GATEWAY}:80"),
            log: "/dev/stderr".to_owned(),
            controller: Site::boot_listener(),
            tftp_root: lab.tftp_root().display().to_string(),
            builds: builds.display().to_string(),
            images: images.display().to_string(),
        };
        Self::start(lab, "nginx", &config.render()?)
    }

    /// A mirror of `upstream` on a port of its own.
    pub fn mirror(lab: &Lab, name: &str, port: u16, upstream: &str) -> Result<Self> {
        let config = small_site::Mirror {
            listen: format!("{GATEWAY}:{port}"),
            log: "/dev/stderr".to_owned(),
            upstream: upstream.to_owned(),
            cache: lab.dir().join(name).join("cache").display().to_string(),
            cache_size: "1g".to_owned(),
        };
        Self::start(lab, name, &config.render()?)
    }

    /// A configuration as it would lie in `/etc/nginx/conf.d/`.
    pub fn start(lab: &Lab, name: &str, config: &str) -> Result<Self> {
        let dir = lab.dir().join(name);
        fs::create_dir_all(&dir).doing(|| format!("making {}", dir.display()))?;
        let (main, part) = (dir.join("nginx.conf"), dir.join("site.conf"));
        let here = dir.display();
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {here}/nginx.pid;\nerror_log stderr;\nevents {{}}\n\
             http {{\n  client_body_temp_path {here}/body;\n  proxy_temp_path {here}/proxy;\n  \
             fastcgi_temp_path {here}/fastcgi;\n  uwsgi_temp_path {here}/uwsgi;\n  scgi_temp_path {here}/scgi;\n  \
             include {here}/site.conf;\n}}\n"
        );
        for (path, text) in [(&main, text.as_str()), (&part, config)] {
            fs::write(path, text).doing(|| format!("writing {}", path.display()))?;
        }
        let mut command = lab.command(tool::find("nginx")?);
        command.arg("-e").arg("stderr").arg("-c").arg(&main);
        let mut web = Self { process: lab.spawn(name, command)?, dir };
        web.wait_until_it_listens()?;
        Ok(web)
    }

    /// nginx writes its process id once it has its ports.
    fn wait_until_it_listens(&mut self) -> Result<()> {
        const LIMIT: Duration = Duration::from_secs(20);
        let end = Instant::now() + LIMIT;
        let pid = self.dir.join("nginx.pid");
        while !fs::read_to_string(&pid).is_ok_and(|text| !text.trim().is_empty()) {
            if let Some(status) = self.process.ended() {
                return Err(LabError::Tool { command: "nginx".to_owned(), status, output: self.process.log().tail() });
            }
            if Instant::now() >= end {
                let last = self.process.log().tail();
                return Err(LabError::NotReached { what: "nginx listening".to_owned(), limit: LIMIT, last });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Who asked for what, and what went wrong.
    pub fn log(&self) -> &crate::log::Log {
        self.process.log()
    }

    pub fn stop(&mut self) {
        self.process.stop();
    }
}
