//! Aligned columns of text: the first to the left, the others to the right. Knows no meaning.

/// Rows under a header, each line ended.
pub(super) fn aligned(header: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |row: usize, column: usize| match row {
        0 => header[column],
        _ => rows[row - 1].get(column).map_or("", String::as_str),
    };
    let lines = 0..=rows.len();
    let width = |column: usize| lines.clone().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |row: usize| {
        let cells = widths.iter().enumerate().map(|(column, &width)| match column {
            0 => format!("{:<width$}", cell(row, column)),
            _ => format!("{:>width$}", cell(row, column)),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    lines.clone().map(line).collect()
}

/// A number in about three digits; `-` for none.
pub(super) fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value.abs() >= 99.95 || value == 0.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 9.995 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// A share of 1 in percent.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["é".to_owned(), "1".to_owned()], vec!["long".to_owned(), "12345".to_owned()]];
        assert_eq!(aligned(&["a", "bcd"], &rows), "a       bcd\né         1\nlong  12345\n");
    }

    #[test]
    fn numbers_keep_about_three_digits() {
        let cases = [(0.0, "0"), (0.004, "0.00"), (1.234, "1.23"), (12.34, "12.3"), (99.97, "100"), (4321.6, "4322")];
        for (value, text) in cases {
            assert_eq!(number(Some(value)), text);
        }
        assert_eq!((number(None), percent(Some(0.5)), percent(None)), ("-".into(), "50.0 %".into(), "-".into()));
    }
}
