//! Release archives, Debian packages and container images, from one staging folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{built, licenses, root, step::Step};

const HELP: &str = "\
cargo xtask dist [FLAGS]      a static archive of all programs, with licenses, completions, manual pages and checksums
cargo xtask deb [FLAGS]       a Debian package
cargo xtask images [FLAGS]    the container images farllama:VERSION and mock-ollama:VERSION

Everything is written to target/dist.

Flags:
  --built          package the programs that `cargo build` left beside this one, instead of building static ones
                   (images then hold the shared libraries that these need; archives are refused)
  --reproducible   dist: build twice in different folders and compare the digests of the programs
  --tag TAG        images: another tag than the version (and `latest`)
";

/// The programs.
const PROGRAMS: [&str; 3] = ["farllama", "farllama-check", "mock-ollama"];
/// The crate of each.
const CRATES: [&str; 3] = ["farllama", "farllama-check", "mock-ollama"];
const SHELLS: [(&str, &str, &str); 3] = [("bash", "", ""), ("zsh", "_", ""), ("fish", "", ".fish")];
/// Where Debian and others have the certificate authorities.
const AUTHORITIES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

#[derive(Debug, Default)]
struct Flags {
    built: bool,
    reproducible: bool,
    tag: Option<String>,
}

impl Flags {
    fn read(args: &[String]) -> Result<Option<Self>, String> {
        let mut flags = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match &**arg {
                "--built" => flags.built = true,
                "--reproducible" => flags.reproducible = true,
                "--tag" => flags.tag = Some(args.next().ok_or("--tag needs a tag")?.clone()),
                "--help" | "-h" => {
                    print!("{HELP}");
                    return Ok(None);
                }
                other => return Err(format!("unknown flag {other}\n\n{HELP}")),
            }
        }
        Ok(Some(flags))
    }
}

/// `cargo xtask dist`.
pub(crate) fn archive(args: &[String]) -> Result<(), String> {
    let Some(flags) = Flags::read(args)? else { return Ok(()) };
    if flags.built {
        return Err("archives hold static programs: leave out --built".to_owned());
    }
    let programs = build("dist-build")?;
    if flags.reproducible {
        compare(&programs, &build("dist-build-again")?)?;
    }
    let name = format!("farllama-{}-{}", version()?, target());
    let dist = out()?;
    let stage = dist.join(&name);
    remake(&stage)?;
    for program in PROGRAMS {
        copy(&programs.join(program), &stage.join(program))?;
        is_static(&stage.join(program))?;
        names_no_folder(&stage.join(program), &[root(), cargo_home()])?;
    }
    for file in ["README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md"] {
        copy(&root().join(file), &stage.join(file))?;
    }
    copy(&root().join("proxy/config.example.toml"), &stage.join("config.example.toml"))?;
    copy(&root().join("contrib/systemd/farllama.service"), &stage.join("farllama.service"))?;
    write(&stage.join("THIRD-PARTY-LICENSES.txt"), &licenses::notices()?)?;
    generated(&programs, &stage.join("completions"), &stage.join("man"))?;
    let archive = dist.join(format!("{name}.tar.gz"));
    // The same bytes whenever and by whomever it is packed.
    shell(&format!(
        "cd {dist} && tar --sort=name --mtime=@{epoch} --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw,a-s -cf - {name} | gzip -9n > {archive}",
        dist = quoted(&dist),
        epoch = epoch(),
        archive = quoted(&archive),
    ))?;
    shell(&format!("cd {} && sha256sum *.tar.gz *.deb 2>/dev/null > SHA256SUMS; cat SHA256SUMS", quoted(&dist)))?;
    println!("{}", archive.display());
    Ok(())
}

/// `cargo xtask deb`.
pub(crate) fn debian(args: &[String]) -> Result<(), String> {
    let Some(flags) = Flags::read(args)? else { return Ok(()) };
    let programs = if flags.built { beside()? } else { build("dist-build")? };
    let package = package(&programs, flags.built)?;
    tidy_up(&flags, &programs)?;
    println!("{}", package.display());
    Ok(())
}

/// Makes the Debian package of these programs.
fn package(programs: &Path, quick: bool) -> Result<PathBuf, String> {
    let dist = out()?;
    let stage = dist.join("deb");
    remake(&stage)?;
    let at = |path: &str| stage.join(path);
    let contrib = |path: &str| root().join("contrib").join(path);
    for program in PROGRAMS {
        copy(&programs.join(program), &at("usr/bin").join(program))?;
    }
    copy(&contrib("systemd/farllama.service"), &at("usr/lib/systemd/system/farllama.service"))?;
    copy(&contrib("systemd/farllama.sysusers"), &at("usr/lib/sysusers.d/farllama.conf"))?;
    copy(&contrib("debian/config.toml"), &at("etc/farllama/config.toml"))?;
    let doc = at("usr/share/doc/farllama");
    copy(&root().join("proxy/config.example.toml"), &doc.join("config.example.toml"))?;
    copy(&root().join("CHANGELOG.md"), &doc.join("changelog"))?;
    let license = fs::read_to_string(root().join("LICENSE")).map_err(|error| format!("LICENSE: {error}"))?;
    write(&doc.join("copyright"), &format!("{license}\n{}", licenses::notices()?))?;
    let share = at("usr/share");
    let (completions, man) = (dist.join("deb-completions"), share.join("man/man1"));
    remake(&completions)?;
    generated(programs, &completions, &man)?;
    for (shell, prefix, suffix) in SHELLS {
        let folder = match shell {
            "bash" => share.join("bash-completion/completions"),
            "zsh" => share.join("zsh/vendor-completions"),
            _ => share.join("fish/vendor_completions.d"),
        };
        for program in PROGRAMS {
            let name = format!("{prefix}{program}{suffix}");
            copy(&completions.join(shell).join(&name), &folder.join(&name))?;
        }
    }
    shell(&format!("gzip -9n {}/changelog {}/*.1", quoted(&doc), quoted(&man)))?;
    for script in ["postinst", "prerm", "postrm"] {
        copy(&contrib("debian").join(script), &at("DEBIAN").join(script))?;
    }
    write(&at("DEBIAN/conffiles"), "/etc/farllama/config.toml\n")?;
    let is_static = PROGRAMS.iter().all(|program| is_static(&programs.join(program)).is_ok());
    let depends = if is_static { "" } else { "Depends: libc6, libgcc-s1\n" };
    let version = version()?;
    let architecture = match env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    write(
        &at("DEBIAN/control"),
        &format!(
            "Package: farllama\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: farllama maintainers <maintainers@example.com>\nSection: net\nPriority: optional\nRecommends: ca-certificates\n{depends}Description: local Ollama and OpenAI server in front of a remote Ollama\n Passes Ollama's own API through byte for byte, and translates OpenAI's and Anthropic's API to it. With\n farllama-check, which checks servers with scenarios, and mock-ollama, an Ollama without models for tests.\n"
        ),
    )?;
    shell(&format!("chmod -R u=rwX,go=rX {}", quoted(&stage)))?;
    let package = dist.join(format!("farllama_{version}_{architecture}.deb"));
    // What is not for release is packed quickly.
    let compression = if quick { ["-Zgzip", "-z1"] } else { ["-Zxz", "-z9"] };
    Step::program("dpkg-deb", "dpkg-deb")
        .env("SOURCE_DATE_EPOCH", &epoch())
        .arg(compression[0])
        .arg(compression[1])
        .arg("--root-owner-group")
        .arg("--build")
        .arg(&stage)
        .arg(&package)
        .run()?;
    Ok(package)
}

/// `cargo xtask images`.
pub(crate) fn images(args: &[String]) -> Result<(), String> {
    let Some(flags) = Flags::read(args)? else { return Ok(()) };
    let programs = if flags.built { beside()? } else { build("dist-build")? };
    let version = version()?;
    for program in ["farllama", "mock-ollama"] {
        let context = out()?.join("images").join(program);
        remake(&context)?;
        let files = context.join("root");
        copy(&programs.join(program), &files.join("usr/bin").join(program))?;
        if is_static(&programs.join(program)).is_err() {
            for library in libraries(&programs.join(program))? {
                copy(&library, &files.join(library.strip_prefix("/").unwrap_or(&library)))?;
            }
        }
        if let Some(authorities) = AUTHORITIES.iter().map(Path::new).find(|path| path.exists()) {
            copy(authorities, &files.join("etc/ssl/certs/ca-certificates.crt"))?;
        }
        let dockerfile = root().join("contrib/docker").join(format!("{program}.Dockerfile"));
        copy(&dockerfile, &context.join("Dockerfile"))?;
        let tags = flags.tag.clone().map_or_else(|| vec![version.clone(), "latest".to_owned()], |tag| vec![tag]);
        // The classic builder: the other one is a plugin of its own.
        let mut step = Step::program("docker", "docker").env("DOCKER_BUILDKIT", "0").arg("build").arg("--quiet");
        for tag in tags {
            step = step.arg("--tag").arg(format!("{program}:{tag}"));
        }
        let revision = output("git", &["rev-parse", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
        step.arg("--build-arg")
            .arg(format!("VERSION={version}"))
            .arg("--build-arg")
            .arg(format!("REVISION={revision}"))
            .arg(&context)
            .run()?;
    }
    tidy_up(&flags, &programs)
}

/// Builds static programs, and returns their folder.
fn build(folder: &str) -> Result<PathBuf, String> {
    let target = target();
    let folder = root().join("target").join(folder);
    let (here, home) = (root(), cargo_home());
    let (here, home) = (here.display(), home.display());
    // No path of this machine stays in the programs, nor in what C compilers make for them.
    let flags = format!("-C target-feature=+crt-static --remap-path-prefix={here}=. --remap-path-prefix={home}=cargo");
    let c_flags = env::var("CFLAGS").unwrap_or_default();
    let c_flags = format!("{c_flags} -ffile-prefix-map={here}=. -ffile-prefix-map={home}=cargo");
    // Naming the target keeps build scripts and procedural macros out of the static flags.
    let mut step = Step::cargo("build --release --locked --quiet").arg("--target").arg(&target);
    for name in CRATES {
        step = step.arg("--package").arg(name);
    }
    step.arg("--target-dir")
        .arg(&folder)
        .env("RUSTFLAGS", &flags)
        .env("CFLAGS", c_flags.trim())
        .env("SOURCE_DATE_EPOCH", &epoch())
        .run()?;
    Ok(folder.join(target).join("release"))
}

/// A folder with the programs that `cargo build` left, without their debug information, which is most of them.
fn beside() -> Result<PathBuf, String> {
    // One for each process: tests package at the same time.
    let folder = out()?.join(format!("built-{}", std::process::id()));
    remake(&folder)?;
    for program in PROGRAMS {
        let (from, to) = (built(program)?, folder.join(program));
        let stripped = Command::new("strip").arg("--strip-debug").arg("-o").arg(&to).arg(&from).status();
        if !stripped.is_ok_and(|status| status.success()) {
            copy(&from, &to)?;
        }
    }
    Ok(folder)
}

/// Removes the folder that [`beside`] made.
fn tidy_up(flags: &Flags, programs: &Path) -> Result<(), String> {
    if !flags.built {
        return Ok(());
    }
    fs::remove_dir_all(programs).map_err(|error| format!("{}: {error}", programs.display()))
}

/// Fails if two builds of a program differ, and names the first byte that does.
fn compare(one: &Path, other: &Path) -> Result<(), String> {
    let mut differ = Vec::new();
    for program in PROGRAMS {
        let read = |folder: &Path| fs::read(folder.join(program)).map_err(|error| format!("{program}: {error}"));
        let (one, other) = (read(one)?, read(other)?);
        if one != other {
            let at = one.iter().zip(&other).position(|(one, other)| one != other).unwrap_or(one.len().min(other.len()));
            differ.push(format!("{program} from byte {at} of {} and {}", one.len(), other.len()));
        }
    }
    if differ.is_empty() {
        println!("  two builds are the same: {}", PROGRAMS.join(", "));
        return Ok(());
    }
    Err(format!("two builds differ: {}", differ.join(", ")))
}

/// Completions of each shell and the manual pages, made by the programs themselves.
fn generated(programs: &Path, completions: &Path, man: &Path) -> Result<(), String> {
    for program in PROGRAMS {
        let command = |args: &[&str]| {
            let path = programs.join(program);
            let output =
                Command::new(&path).args(args).output().map_err(|error| format!("{}: {error}", path.display()))?;
            if output.status.success() {
                return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
            }
            Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)))
        };
        // The mock has no commands.
        let (complete, page) =
            if program == "mock-ollama" { ("--completions", "--man") } else { ("completions", "man") };
        for (shell, prefix, suffix) in SHELLS {
            let text = command(&[complete, shell])?;
            write(&completions.join(shell).join(format!("{prefix}{program}{suffix}")), &text)?;
        }
        command(&[page, &man.to_string_lossy()])?;
    }
    Ok(())
}

/// Where cargo has the sources of dependencies.
fn cargo_home() -> PathBuf {
    let home = env::var("CARGO_HOME").or_else(|_| env::var("HOME").map(|home| format!("{home}/.cargo")));
    PathBuf::from(home.unwrap_or_default())
}

/// Fails if a program has the path of one of these folders in it.
fn names_no_folder(program: &Path, folders: &[PathBuf]) -> Result<(), String> {
    let bytes = fs::read(program).map_err(|error| format!("{}: {error}", program.display()))?;
    for folder in folders.iter().filter(|folder| folder.components().count() > 1) {
        let path = folder.as_os_str().as_encoded_bytes();
        if bytes.windows(path.len()).any(|window| window == path) {
            return Err(format!("{} has the path {} in it", program.display(), folder.display()));
        }
    }
    Ok(())
}

/// Fails unless a program needs no shared library.
fn is_static(program: &Path) -> Result<(), String> {
    let libraries = libraries(program)?;
    if libraries.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
    Err(format!("{} is not static: it needs {}", program.display(), names.join(", ")))
}

/// The shared libraries that a program needs, its loader included.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("ldd").arg(program).output().map_err(|error| format!("ldd: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(parse_ldd(&text))
}

fn parse_ldd(text: &str) -> Vec<PathBuf> {
    let paths = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

/// The version of the workspace.
pub(crate) fn version() -> Result<String, String> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).map_err(|error| format!("Cargo.toml: {error}"))?;
    let line = manifest.lines().find_map(|line| line.strip_prefix("version = \""));
    line.and_then(|rest| rest.split('"').next()).map(str::to_owned).ok_or("Cargo.toml has no version".to_owned())
}

fn target() -> String {
    format!("{}-unknown-linux-gnu", env::consts::ARCH)
}

/// The time of the last commit: what is packed says that it was made then.
fn epoch() -> String {
    output("git", &["log", "-1", "--format=%ct"]).unwrap_or_else(|| "0".to_owned())
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(root()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn out() -> Result<PathBuf, String> {
    let folder = root().join("target").join("dist");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}

fn remake(folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(failed)?;
    }
    fs::create_dir_all(folder).map_err(failed)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{} to {}: {error}", from.display(), to.display());
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(failed)?;
    fs::copy(from, to).map(|_| ()).map_err(failed)
}

fn write(to: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    fs::create_dir_all(to.parent().unwrap_or(to)).map_err(failed)?;
    fs::write(to, text).map_err(failed)
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

fn shell(line: &str) -> Result<(), String> {
    let status = Command::new("sh").args(["-c", line]).status().map_err(|error| format!("sh: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("failed ({status}): {line}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_libraries_of_a_program_are_read() {
        let text = "\tlinux-vdso.so.1 (0x0)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x1)\n\t/lib64/ld-linux-x86-64.so.2 (0x2)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(parse_ldd(text), expected);
        assert_eq!(parse_ldd("\tstatically linked\n"), Vec::<PathBuf>::new());
    }

    #[test]
    fn flags_are_read_and_unknown_ones_refused() {
        let read = |args: &[&str]| Flags::read(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
        assert!(read(&["--built", "--tag", "x"]).is_ok_and(|flags| flags.is_some_and(|flags| flags.built)));
        assert!(read(&["--tag"]).is_err() && read(&["--fast"]).is_err());
    }

    #[test]
    fn the_path_of_a_folder_in_a_program_is_noticed() {
        let program = env::temp_dir().join(format!("farllama-dist-path-{}", std::process::id()));
        write(&program, "\u{1}/builds/farllama/x.c\u{1}").unwrap_or_default();
        assert!(names_no_folder(&program, &[PathBuf::from("/builds/farllama")]).is_err());
        assert!(names_no_folder(&program, &[PathBuf::from("/builds/other"), PathBuf::from("/")]).is_ok());
        let _ = fs::remove_file(&program);
    }

    #[test]
    fn two_builds_that_differ_are_noticed() {
        let folder = env::temp_dir().join(format!("farllama-dist-{}", std::process::id()));
        let (one, other) = (folder.join("one"), folder.join("other"));
        for program in PROGRAMS {
            write(&one.join(program), "same").unwrap_or_default();
            write(&other.join(program), "same").unwrap_or_default();
        }
        assert_eq!(compare(&one, &other), Ok(()));
        write(&other.join("farllama"), "sane").unwrap_or_default();
        let differ = "two builds differ: farllama from byte 2 of 4 and 4".to_owned();
        assert_eq!(compare(&one, &other), Err(differ));
        let _ = fs::remove_dir_all(folder);
    }
}
