//! In which order remotes are tried. Pure.

use super::state::Has;

/// What the choice needs to know of a remote.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) up: bool,
    pub(super) has: Has,
    pub(super) priority: u32,
    pub(super) weight: u32,
    pub(super) in_flight: usize,
}

/// The order in which remotes are tried.
pub(super) type Key = (bool, Has, u32, u64, usize);

/// Returns the key of the remote at `at`: the one with the lowest key is the best. Those in use come before those that
/// are out of use, where the model is loaded before where it is installed, then by priority, then by the fewest
/// requests per weight, then in the order of the settings. None: it does not have the model. One whose models are not
/// known comes after those that have it.
pub(super) fn key(at: usize, view: View) -> Option<Key> {
    let View { up, has, priority, weight, in_flight } = view;
    // What its load would be with this request, so that weights count when nothing runs.
    let load = (in_flight as u64 + 1).saturating_mul(1_000_000_000) / u64::from(weight.max(1));
    (has != Has::No).then_some((!up, has, priority, load, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(views: &[View]) -> Vec<usize> {
        let mut keys: Vec<_> = views.iter().enumerate().filter_map(|(at, view)| key(at, *view)).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(.., at)| at).collect()
    }

    const PLAIN: View = View { up: true, has: Has::Installed, priority: 0, weight: 1, in_flight: 0 };

    #[test]
    fn each_rule_comes_before_the_next() {
        let down = View { up: false, has: Has::Loaded, ..PLAIN };
        let loaded = View { has: Has::Loaded, priority: 9, in_flight: 9, ..PLAIN };
        let later = View { priority: 1, ..PLAIN };
        let busy = View { in_flight: 1, ..PLAIN };
        let unknown = View { has: Has::Unknown, ..PLAIN };
        let without = View { has: Has::No, ..PLAIN };
        assert_eq!(order(&[down, without, unknown, later, busy, PLAIN, loaded]), [6, 5, 4, 3, 2, 0]);
        assert_eq!(order(&[PLAIN, PLAIN]), [0, 1]);
        assert!(order(&[without]).is_empty());
    }

    #[test]
    fn among_equals_each_gets_requests_by_its_weight() {
        let mut views = [View { weight: 1, ..PLAIN }, View { weight: 3, ..PLAIN }, View { weight: 2, ..PLAIN }];
        for _ in 0..600 {
            let best = order(&views)[0];
            views[best].in_flight += 1;
        }
        assert_eq!(views.map(|view| view.in_flight), [100, 300, 200]);
    }
}
