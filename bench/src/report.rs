//! The tables: medians over rounds with their range, and how many times nginx's they are.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use crate::contender::Contender;

/// A whole run, as its JSON file has it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// When, on what, and how.
    pub(crate) about: Vec<String>,
    pub(crate) rows: Vec<RowReport>,
}

/// A row's measurements.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RowReport {
    pub(crate) name: String,
    pub(crate) what: String,
    /// Each contender's rounds: values by their names.
    pub(crate) rounds: BTreeMap<Contender, Vec<BTreeMap<String, f64>>>,
    /// Why a contender is missing.
    pub(crate) missing: BTreeMap<Contender, String>,
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values.get(middle).copied()
    } else {
        Some(f64::midpoint(*values.get(middle.checked_sub(1)?)?, *values.get(middle)?))
    }
}

fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 1.0 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    }
}

impl Report {
    /// As Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        for line in &self.about {
            let _ = writeln!(text, "{line}");
        }
        for row in &self.rows {
            let _ = writeln!(text, "\n**{}**: {}\n", row.name, row.what);
            text.push_str(&row.markdown());
        }
        text
    }
}

impl RowReport {
    fn markdown(&self) -> String {
        // The names in the order of their first appearance would need an order; the alphabet is one.
        let mut names: Vec<&String> = self.rounds.values().flatten().flat_map(BTreeMap::keys).collect();
        names.sort();
        names.dedup();
        let mut text = String::from("|");
        for name in &names {
            let _ = write!(text, " | {name} | × nginx");
        }
        let _ = writeln!(text, " |\n|---|{}", "---|".repeat(names.len() * 2));
        for (contender, rounds) in &self.rounds {
            let _ = write!(text, "| {}", contender.name());
            for name in &names {
                let mut values: Vec<f64> = rounds.iter().filter_map(|round| round.get(*name).copied()).collect();
                let Some(middle) = median(&mut values) else {
                    text.push_str(" | – | –");
                    continue;
                };
                let (least, most) =
                    (values.first().copied().unwrap_or(middle), values.last().copied().unwrap_or(middle));
                let range =
                    if values.len() > 1 { format!(" ({}–{})", number(least), number(most)) } else { String::new() };
                let ratio = self.ratio(*contender, name).map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
                let _ = write!(text, " | {}{range} | {ratio}", number(middle));
            }
            text.push_str(" |\n");
        }
        for (contender, why) in &self.missing {
            let _ = writeln!(text, "\n{}: not measured: {}", contender.name(), why.lines().next().unwrap_or_default());
        }
        text
    }

    /// The median of the ratios within each round, so that a slow round counts for both.
    fn ratio(&self, contender: Contender, name: &str) -> Option<f64> {
        let nginx = self.rounds.get(&Contender::Nginx)?;
        let own = self.rounds.get(&contender)?;
        let pairs = own.iter().zip(nginx).filter_map(|(own, nginx)| Some(own.get(name)? / nginx.get(name)?));
        let mut ratios: Vec<f64> = pairs.filter(|ratio| ratio.is_finite()).collect();
        median(&mut ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_ranges_and_ratios_within_rounds() {
        let rounds = |values: [f64; 3]| values.map(|value| BTreeMap::from([("p50 ms".to_owned(), value)])).to_vec();
        let row = RowReport {
            name: "chat_c1".to_owned(),
            what: "a chat".to_owned(),
            rounds: [(Contender::Nginx, rounds([1.0, 2.0, 4.0])), (Contender::Farllama, rounds([1.1, 2.4, 4.4]))]
                .into(),
            missing: [(Contender::Floor, "no such thing\nmore".to_owned())].into(),
        };
        let text = Report { about: vec!["On a machine.".to_owned()], rows: vec![row] }.markdown();
        assert_eq!(
            text,
            "On a machine.\n\n**chat_c1**: a chat\n\n| | p50 ms | × nginx |\n|---|---|---|\n| nginx | 2.00 (1.00–4.00) | 1.00 |\n\
             | farllama | 2.40 (1.10–4.40) | 1.10 |\n\nfloor: not measured: no such thing\n"
        );
    }
}
