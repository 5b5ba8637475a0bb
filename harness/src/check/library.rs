//! The scenarios that stand in the binary: those of this repository.

use include_dir::{Dir, include_dir};

use super::load::{Problem, read};
use crate::scenario::loaded::{Loaded, expand};

static LIBRARY: Dir<'_> = include_dir!("$FARLLAMA_CHECK_SCENARIOS");

/// All of them, in the order of their names; or those of one folder, such as `smoke`.
///
/// # Errors
/// Everything that is wrong with any of them, which would be a bug.
pub fn scenarios(folder: Option<&str>) -> Result<Vec<Loaded>, Vec<Problem>> {
    let mut folders = vec![folder.map_or(Some(&LIBRARY), |folder| LIBRARY.get_dir(folder))];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        let Some(folder) = folder else { continue };
        folders.extend(folder.dirs().map(Some));
        files.extend(folder.files().filter(|file| file.path().extension().is_some_and(|ending| ending == "yaml")));
    }
    files.sort_by_key(|file| file.path());
    let (mut loaded, mut problems) = (Vec::new(), Vec::new());
    for file in files {
        let name = format!("scenarios/{}", file.path().display());
        match read(&name, file.contents_utf8().unwrap_or_default()) {
            Ok(scenario) => loaded.extend(expand(&name, &scenario)),
            Err(wrong) => problems.extend(wrong),
        }
    }
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_can_be_read_and_a_folder_is_a_part_of_them() {
        let all = scenarios(None).unwrap();
        let smoke = scenarios(Some("smoke")).unwrap();
        assert!(all.len() > 100 && smoke.len() == 4, "{} {}", all.len(), smoke.len());
        assert!(smoke.iter().all(|loaded| loaded.file.starts_with("scenarios/smoke/")));
    }
}
