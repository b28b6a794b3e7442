//! The outside programs: nats-server, yt-dlp, ffmpeg and Python, found on the PATH or installed.
//!
//! Packages are installed into `.tools/` in the checkout, pinned by hash. The only change outside the checkout: as
//! root, `apt-get` installs ffmpeg, Python and the benches' peers. Once everything is installed, finding it starts no
//! process.

mod apt;
mod lock;
mod npm;
mod path;
mod peers;
mod pip;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use self::path::Probes;
pub use self::peers::Peers;

/// The oldest nats-server with the features that Millrace needs.
const NATS_SERVER_MIN: [u32; 2] = [2, 12];
/// The oldest accepted yt-dlp: the pinned version, since sites change and old versions stop working.
const YT_DLP_MIN: [u32; 3] = [2026, 10, 26];
/// The oldest Python that the pinned packages run on.
const PYTHON_MIN: [u32; 2] = [3, 11];

/// Paths of the outside programs. Each runs without further settings, also with a cleared environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tools {
    /// nats-server, 2.12 or newer.
    pub nats_server: PathBuf,
    /// yt-dlp, the pinned version or newer.
    pub yt_dlp: PathBuf,
    /// ffmpeg.
    pub ffmpeg: PathBuf,
    /// ffprobe.
    pub ffprobe: PathBuf,
    /// Python, 3.11 or newer. From [`Tools::ensure_tests`] it can also import `websockets`.
    pub python: PathBuf,
}

impl Tools {
    /// Finds the programs that `cargo dev up` runs, and installs missing ones. `root` is the checkout; `say` is called
    /// before each slow step.
    ///
    /// Safe to call from several processes at once. Blocks, for minutes at most, while it installs a program.
    pub fn ensure(root: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<Tools> {
        let mut finder = Finder::new(root, say)?;
        let (ffmpeg, ffprobe) = finder.ffmpeg()?;
        Ok(Tools {
            nats_server: finder.nats_server()?,
            yt_dlp: finder.yt_dlp()?,
            ffmpeg,
            ffprobe,
            python: finder.python()?.executable,
        })
    }

    /// [`Tools::ensure`] for tests: `python` can also import `websockets`.
    pub fn ensure_tests(root: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<Tools> {
        let python = python_for_tests(root, say)?;
        Ok(Tools { python, ..Tools::ensure(root, say)? })
    }
}

/// Finds or installs only nats-server, for tests that need no other program.
pub fn nats_server(root: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<PathBuf> {
    Finder::new(root, say)?.nats_server()
}

/// Finds or installs only ffmpeg and ffprobe.
pub fn ffmpeg(root: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<(PathBuf, PathBuf)> {
    Finder::new(root, say)?.ffmpeg()
}

/// Finds or installs only a Python that can import `websockets`, for tests that need no other program.
pub fn python_for_tests(root: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<PathBuf> {
    let mut finder = Finder::new(root, say)?;
    let python = finder.python()?;
    Ok(finder.install("tests", include_str!("../requirements/tests.txt"), &python)?.join("bin/python"))
}

/// Finds or installs the other programs' commands in README.md: curl, and a folder `node_modules` with wscat.
pub fn for_readme(root: &Path, say: &mut dyn FnMut(&str)) -> anyhow::Result<(PathBuf, PathBuf)> {
    let mut finder = Finder::new(root, say)?;
    let (_, node_modules) = finder.node_packages(
        "wscat",
        "wscat",
        include_str!("../requirements/wscat/package.json"),
        include_str!("../requirements/wscat/package-lock.json"),
    )?;
    Ok((finder.on_path_or_apt("curl")?, node_modules))
}

/// A Python found on the PATH: the real interpreter, not a shim.
struct Python {
    executable: PathBuf,
    has_pip: bool,
}

struct Finder<'a> {
    folder: PathBuf,
    probes: Probes,
    say: &'a mut dyn FnMut(&str),
}

impl<'a> Finder<'a> {
    fn new(root: &Path, say: &'a mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        let root = root
            .canonicalize()
            .with_context(|| format!("{} is not a folder; give the root of the checkout", root.display()))?;
        let folder = root.join(".tools");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}; make the checkout writable", folder.display()))?;
        Ok(Self { probes: Probes::load(folder.join("found.json")), folder, say })
    }

    fn nats_server(&mut self) -> anyhow::Result<PathBuf> {
        self.on_path_or_pinned("nats-server", &NATS_SERVER_MIN)
    }

    fn yt_dlp(&mut self) -> anyhow::Result<PathBuf> {
        self.on_path_or_pinned("yt-dlp", &YT_DLP_MIN)
    }

    fn on_path_or_pinned(&mut self, name: &str, version_min: &[u32]) -> anyhow::Result<PathBuf> {
        for path in path::on_path(name) {
            let answer = self.probes.ask(&path, &["--version"]);
            if answer.is_some_and(|text| path::version(&text).is_some_and(|version| version.as_slice() >= version_min))
            {
                return Ok(path);
            }
        }
        let python = self.python()?;
        Ok(self.install("tools", include_str!("../requirements/tools.txt"), &python)?.join("bin").join(name))
    }

    /// A program whose Debian package has its name.
    fn on_path_or_apt(&mut self, program: &str) -> anyhow::Result<PathBuf> {
        let find = || path::on_path(program).next();
        if let Some(found) = find() {
            return Ok(found);
        }
        let _lock = lock::hold(&self.folder)?;
        if find().is_none() {
            apt::install(&[program], &format!("{program} is needed"), self.say)?;
        }
        find().with_context(|| format!("{program} is still not on the PATH after its package was installed"))
    }

    fn install(&mut self, name: &str, requirements: &str, python: &Python) -> anyhow::Result<PathBuf> {
        let target = self.folder.join(pip::folder_name(name, requirements, &python.executable));
        if target.is_dir() {
            return Ok(target);
        }
        let _lock = lock::hold(&self.folder)?;
        if !target.is_dir() {
            let with_pip = if python.has_pip { &python.executable } else { &self.install_python()?.executable };
            (self.say)(&format!("installing {} into {}", pip::names(requirements).join(" and "), target.display()));
            pip::install(&self.folder, &target, requirements, with_pip, &python.executable)?;
        }
        Ok(target)
    }

    fn python(&mut self) -> anyhow::Result<Python> {
        match self.find_python() {
            Some(python) => Ok(python),
            None => {
                let _lock = lock::hold(&self.folder)?;
                self.install_python()
            }
        }
    }

    /// The first good Python on the PATH that has pip, else the first good one.
    fn find_python(&mut self) -> Option<Python> {
        let mut first = None;
        for name in ["python3", "python3.14", "python3.13", "python3.12", "python3.11"] {
            for path in path::on_path(name) {
                if let Some(python) = self.probe_python(&path) {
                    if python.has_pip {
                        return Some(python);
                    }
                    first = first.or(Some(python));
                }
            }
        }
        first
    }

    fn probe_python(&mut self, path: &Path) -> Option<Python> {
        const ASK: &str = "import sys, importlib.util as u; print('%d.%d.%d' % sys.version_info[:3], \
        bool(u.find_spec('pip')), sys.executable)";
        let answer = self.probes.ask(path, &["-c", ASK])?;
        let mut words = answer.splitn(3, ' ');
        let version = path::version(words.next()?)?;
        let has_pip = words.next()? == "True";
        let executable = PathBuf::from(words.next()?.trim());
        if !has_pip || !executable.is_file() {
            // pip may be installed, or the shim set to another version, while the file at `path` stays the same.
            self.probes.forget(path);
        }
        (version.as_slice() >= PYTHON_MIN.as_slice() && executable.is_file()).then_some(Python { executable, has_pip })
    }

    fn install_python(&mut self) -> anyhow::Result<Python> {
        apt::install(&["python3", "python3-pip"], "Python 3.11 or newer with pip is needed", self.say)?;
        match self.find_python() {
            Some(python) if python.has_pip => Ok(python),
            _ => bail!(
                "no Python 3.11 or newer with pip is on the PATH, and this system's packages have none; install one"
            ),
        }
    }

    fn ffmpeg(&mut self) -> anyhow::Result<(PathBuf, PathBuf)> {
        let find = || Some((path::on_path("ffmpeg").next()?, path::on_path("ffprobe").next()?));
        if let Some(found) = find() {
            return Ok(found);
        }
        let _lock = lock::hold(&self.folder)?;
        if find().is_none() {
            apt::install(&["ffmpeg"], "ffmpeg and ffprobe are needed", self.say)?;
        }
        find().context(
            "ffmpeg or ffprobe is still not on the PATH after installing the package; add its folder to the PATH",
        )
    }
}
